// A visit's state as a small label: colour, shape and text.
import type { VisitState as State } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { useT } from '../../ui/store';

const LABEL: Record<State, { key: MessageKey; tone: string }> = {
  scheduled: { key: 'state.scheduled', tone: 'none' },
  device_check: { key: 'state.device_check', tone: 'info' },
  waiting: { key: 'state.waiting', tone: 'warn' },
  admitted: { key: 'state.in_consult', tone: 'good' },
  in_consult: { key: 'state.in_consult', tone: 'good' },
  ended: { key: 'state.ended', tone: 'none' },
};

export function VisitState({ state }: { state: State }) {
  const t = useT();
  const { key, tone } = LABEL[state];
  return <span className="state" data-tone={tone} data-testid="visit-state" data-state={state}><i className="mark" />{t(key)}</span>;
}
