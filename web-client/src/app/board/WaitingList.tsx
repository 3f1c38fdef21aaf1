// Everybody who waits, for those who watch over the clinic.
import type { Visit } from '../../core/api/types';
import { Avatar, ErrorState, Skeleton } from '../../ui/parts';
import { useT } from '../../ui/store';
import { WaitTime } from '../ui/WaitTime';

export function WaitingList({ visits, pending, error, onRetry }: { visits: readonly Visit[]; pending: boolean; error: unknown; onRetry: () => void }) {
  const t = useT();
  return (
    <section className="card side" aria-label={t('board.waiting')} data-testid="board-waiting">
      <h2>{t('board.waiting')}</h2>
      {error ? <ErrorState error={error} onRetry={onRetry} /> : pending ? <Skeleton /> : visits.length === 0 ? <p className="muted">{t('queue.empty')}</p> : (
        <ol>
          {visits.map((v) => (
            <li key={v.id} className="side-row">
              <Avatar name={v.guest.name} size="s" />
              <span><strong>{v.guest.name}</strong><span className="muted small">{t('board.with', { name: v.host.name })}</span></span>
              <WaitTime since={v.arrived_at} />
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
