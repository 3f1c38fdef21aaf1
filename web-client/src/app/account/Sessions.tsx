// Where one is signed in; each can be ended, and all but this one at once.
import { useQuery } from '@tanstack/react-query';
import { account } from '../../core/api/endpoints';
import { Button, ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub } from '../hub';
import { shortDate } from './dates';
import { Part, useAct } from './Part';

export function Sessions() {
  const t = useT();
  const language = useLanguage();
  const { busy, problem, run } = useAct();
  const query = useQuery({ queryKey: ['security', 'sessions'], queryFn: () => account.sessions(hub.api) });
  const all = (query.data?.sessions ?? []).toSorted((a, b) => Number(b.current) - Number(a.current));
  return (
    <Part icon="people" title="sessions.title" text="sessions.text" testId="sessions" problem={problem}>
      {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
      {query.isPending ? <Skeleton lines={3} /> : null}
      <ul className="sec-rows">
        {all.map((s) => {
          const name = s.client ?? (s.note || t('sessions.unknown'));
          return (
            <li key={s.id} className="sec-row" data-testid="session" data-current={s.current}>
              <div><strong>{name}</strong><span className="muted small">{t('sessions.seen', { seen: shortDate(s.last_seen_at, language), since: shortDate(s.created_at, language) })}</span></div>
              {s.current ? <span className="chip" data-tone="info">{t('sessions.current')}</span>
                : <Button size="s" variant="ghost" disabled={busy} onClick={() => void run(() => account.endSession(hub.api, s.id))} aria-label={t('sessions.end_named', { name })} data-testid="session-end">{t('sessions.end')}</Button>}
            </li>
          );
        })}
      </ul>
      {all.length > 1 ? <Button busy={busy} onClick={() => void run(() => account.endOthers(hub.api))} data-testid="sessions-end-others">{t('sessions.end_others')}</Button> : null}
    </Part>
  );
}
