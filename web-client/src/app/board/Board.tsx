// The staff board: alerts by severity, who waits, and the truth about how fresh all of it is.
import { useMutation, useQuery } from '@tanstack/react-query';
import { board } from '../../core/api/endpoints';
import type { Alert, Severity } from '../../core/api/types';
import type { BoardEvent } from '../../core/live/events';
import { EmptyState, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';
import { hub, queries, restartReads, useChannel } from '../hub';
import { waitingOf } from '../visits';
import { AlertCard } from './AlertCard';
import { Stale } from './Stale';
import { useBoardVisits } from './useBoardVisits';
import { WaitingList } from './WaitingList';

const NAME = 'main';
const KEY = ['alerts', NAME] as const;
const RANK: Record<Severity, number> = { critical: 0, warning: 1, info: 2 };

function takeAlert(alert: Alert): void {
  queries.setQueryData<{ alerts: Alert[] }>(KEY, (known) => ({ alerts: [alert, ...(known?.alerts ?? []).filter((a) => a.id !== alert.id)] }));
  restartReads(KEY);
}

/** Open alerts by severity, newest first; acknowledged ones below. */
export function ordered(alerts: readonly Alert[]): { open: Alert[]; done: Alert[] } {
  const byTime = alerts.toSorted((a, b) => b.at.localeCompare(a.at));
  return {
    open: byTime.filter((a) => !a.acknowledged_at).toSorted((a, b) => RANK[a.severity] - RANK[b.severity]),
    done: byTime.filter((a) => a.acknowledged_at),
  };
}

export function Board() {
  const t = useT();
  const alerts = useQuery({ queryKey: KEY, queryFn: () => board.alerts(hub.api, NAME) });
  const open = useBoardVisits();
  useChannel<BoardEvent>(`board:${NAME}`, (event) => takeAlert(event.alert), () => void alerts.refetch());
  const acknowledge = useMutation({
    mutationFn: (id: string) => board.acknowledge(hub.api, id),
    onSuccess: (alert) => (alert?.id ? takeAlert(alert) : void alerts.refetch()),
  });
  useTitle(t('nav.board'));

  const { open: fresh, done } = ordered(alerts.data?.alerts ?? []);
  const card = (alert: Alert) => (
    <AlertCard key={alert.id} alert={alert} busy={acknowledge.isPending && acknowledge.variables === alert.id} onAcknowledge={() => acknowledge.mutate(alert.id)} />
  );
  return (
    <div className="board">
      <header className="screen-top">
        <div><h1>{t('nav.board')}</h1><p className="muted" role="status">{t('board.count', { count: fresh.length })}</p></div>
      </header>
      <Stale updatedAt={alerts.dataUpdatedAt} />
      {acknowledge.isError ? <Notice tone="danger">{t('board.ack_failed')}</Notice> : null}
      <div className="board-grid">
        <section aria-label={t('board.alerts')}>
          {alerts.isError && !alerts.data ? <ErrorState error={alerts.error} onRetry={() => void alerts.refetch()} />
            : alerts.isPending ? <div className="card"><Skeleton lines={5} /></div>
            : fresh.length === 0 ? <div className="card"><EmptyState icon="check" title={t('board.empty')}>{t('board.empty_text')}</EmptyState></div>
            : <ol className="alerts">{fresh.map(card)}</ol>}
          {done.length > 0 ? <><h2 className="section">{t('board.done')}</h2><ol className="alerts">{done.slice(0, 20).map(card)}</ol></> : null}
        </section>
        <WaitingList visits={waitingOf(open.data?.visits ?? [])} pending={open.isPending} error={open.isError ? open.error : null} onRetry={() => void open.refetch()} />
      </div>
    </div>
  );
}
