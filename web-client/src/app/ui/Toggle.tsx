// A switch with its words.
import type { ReactNode } from 'react';
import { Switch } from 'react-aria-components';

export function Toggle({ on, onChange, children }: { on: boolean; onChange: (on: boolean) => void; children: ReactNode }) {
  return <Switch className="toggle" isSelected={on} onChange={onChange}><span className="toggle-track"><i /></span>{children}</Switch>;
}
