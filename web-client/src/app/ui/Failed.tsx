// What went wrong, in the server's own plain words, where the work is.
import { asApiError } from '../../core/api/problem';
import { Notice } from '../../ui/parts';
import { useT } from '../../ui/store';

export function Failed({ error }: { error: unknown }) {
  const t = useT();
  if (error === null || error === undefined) return null;
  const problem = asApiError(error);
  return <Notice tone="danger" testId="failed">{problem.status === 0 ? t('error.network') : problem.detail || t('error.server')}</Notice>;
}
