// Who waits, live. J and K move, Enter admits, O opens.
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import type { Visit } from '../../core/api/types';
import { Icon } from '../../ui/Icon';
import { EmptyState, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useStore, useT, useTitle } from '../../ui/store';
import { useShortcuts } from '../hub';
import { Toggle } from '../ui/Toggle';
import { arrivalSound, setArrivalSound, useOpenVisits, useVisitAction, waitingOf } from '../visits';
import { QueueRow } from './QueueRow';

export function Queue() {
  const t = useT();
  const navigate = useNavigate();
  const open = useOpenVisits();
  const act = useVisitAction();
  const sound = useStore(arrivalSound);
  const [pickedId, setPickedId] = useState<string | null>(null);
  useTitle(t('nav.queue'));

  const all = open.data?.visits ?? [];
  const waiting = waitingOf(all);
  const others = all.filter((v) => v.state === 'admitted' || v.state === 'in_consult' || v.state === 'device_check');
  const index = Math.max(0, waiting.findIndex((v) => v.id === pickedId));
  const picked = waiting[index];

  const show = (visit: Visit) => void navigate({ to: '/app/visit/$id', params: { id: visit.id } });
  const admit = (visit: Visit) => act.mutate({ id: visit.id, action: 'admit' }, { onSuccess: () => show(visit) });
  const move = (to: number) => {
    const visit = waiting[Math.min(Math.max(to, 0), waiting.length - 1)];
    if (!visit) return;
    setPickedId(visit.id);
    document.querySelector<HTMLElement>(`[data-row="${visit.id}"]`)?.focus();
  };
  useShortcuts({
    j: () => move(index + 1), ArrowDown: () => move(index + 1),
    k: () => move(index - 1), ArrowUp: () => move(index - 1),
    Enter: () => { if (picked && !act.isPending) admit(picked); },
    o: () => { if (picked) show(picked); },
  });

  return (
    <div className="queue">
      <header className="screen-top">
        <div><h1>{t('nav.queue')}</h1><p className="muted" role="status" data-testid="queue-count">{t('queue.count', { count: waiting.length })}</p></div>
        <Toggle on={sound} onChange={setArrivalSound}>{t('queue.sound')}</Toggle>
      </header>
      {act.isError ? <Notice tone="danger">{t('queue.admit_failed')}</Notice> : null}
      {open.isError ? <ErrorState error={open.error} onRetry={() => void open.refetch()} />
        : open.isPending ? <div className="card"><Skeleton lines={5} /></div>
        : waiting.length === 0 ? <div className="card"><EmptyState icon="queue" title={t('queue.empty')}>{t('queue.empty_text')}</EmptyState></div>
        : (
          <ol className="card rows" aria-label={t('queue.waiting')}>
            {waiting.map((visit, i) => (
              <QueueRow key={visit.id} visit={visit} place={i + 1} picked={visit === picked} busy={act.isPending && act.variables.id === visit.id}
                onPick={() => setPickedId(visit.id)} onAdmit={() => admit(visit)} onOpen={() => show(visit)} />
            ))}
          </ol>
        )}
      {waiting.length > 0 ? <p className="keys muted small"><Icon name="keyboard" size={17} /><kbd>J</kbd><kbd>K</kbd> {t('queue.key_move')} <kbd>Enter</kbd> {t('queue.key_admit')} <kbd>O</kbd> {t('queue.key_open')}</p> : null}
      {others.length > 0 ? (
        <section>
          <h2 className="section">{t('queue.others')}</h2>
          <ol className="card rows">
            {others.map((visit) => (
              <QueueRow key={visit.id} visit={visit} place={null} picked={false} busy={false} onPick={() => undefined} onOpen={() => show(visit)} />
            ))}
          </ol>
        </section>
      ) : null}
    </div>
  );
}
