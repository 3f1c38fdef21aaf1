// What went wrong, in plain words, where the work is.
import { Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { problemText } from '../words';

export function Failed({ error }: { error: unknown }) {
  const t = useT();
  if (error === null || error === undefined) return null;
  return <Notice tone="danger" testId="failed">{problemText(t, error)}</Notice>;
}
