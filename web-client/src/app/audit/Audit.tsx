// The audit trail for administrators: who did what and when, filters kept in the address, and the proof of the chain.
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { audit, identity } from '../../core/api/endpoints';
import { Button, EmptyState, ErrorState, Skeleton } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';
import { hub } from '../hub';
import { Entries } from './Entries';
import { Filters } from './Filters';
import { newest, toQuery, type AuditSearch } from './search';
import { Verify } from './Verify';
import './audit.css';

const PAGE = 50;

export function Audit() {
  const t = useT();
  const search = useSearch({ from: '/app/audit' });
  const navigate = useNavigate({ from: '/app/audit' });
  useTitle(t('nav.audit'));
  const me = useQuery({ queryKey: ['me'], queryFn: () => identity.me(hub.api), staleTime: Infinity });
  const zone = me.data?.tenant.zone ?? 'UTC';
  const query = toQuery(search, zone, PAGE);
  const page = useQuery({
    queryKey: ['audit', query], queryFn: () => audit.page(hub.api, query), enabled: me.data !== undefined,
    // Each look is itself an entry: it is asked for when somebody asks, not when the window is touched.
    refetchOnWindowFocus: false, staleTime: 0,
  });
  const subjects = [...new Set((page.data?.entries ?? []).flatMap((e) => [e.actor, e.target]).filter((a) => a.startsWith('user:')))].toSorted();
  const names = useQuery({
    queryKey: ['audit-names', subjects], queryFn: () => identity.names(hub.api, subjects),
    enabled: subjects.length > 0, staleTime: 300_000, refetchOnWindowFocus: false,
  });
  const show = (next: AuditSearch) => void navigate({ search: next });
  const filtered = Object.keys(search).some((key) => key !== 'after');
  const problem = me.error ?? page.error;
  const retry = () => { if (me.isError) void me.refetch(); else void page.refetch(); };

  return (
    <div className="audit">
      <header className="screen-top">
        <div><h1>{t('nav.audit')}</h1><p className="muted">{t('audit.lead')} {t('audit.zone', { zone: zone.replaceAll('_', ' ') })}</p></div>
      </header>
      <Verify />
      <Filters search={search} onChange={show} />
      <section className="card audit-list" aria-label={t('audit.entries')} aria-busy={page.isFetching}>
        {problem ? <ErrorState error={problem} onRetry={retry} />
          : page.data === undefined ? <Skeleton lines={8} />
          : page.data.entries.length === 0 ? (
            <EmptyState icon="shield" title={t(filtered ? 'audit.none' : 'audit.empty')}
              action={filtered ? <Button onClick={() => show({})}>{t('audit.clear')}</Button> : undefined}>
              {t(filtered ? 'audit.none_text' : 'audit.empty_text')}
            </EmptyState>
          ) : <Entries entries={page.data.entries} people={names.data?.people ?? {}} zone={zone} onPick={(some) => show({ ...newest(search), ...some })} />}
      </section>
      <nav className="audit-pages" aria-label={t('audit.pages')}>
        <Button icon="back" disabled={search.after === undefined} onClick={() => show(newest(search))} data-testid="audit-newest">{t('audit.newest')}</Button>
        <Button icon="next" disabled={!page.data?.next} onClick={() => { if (page.data?.next) show({ ...search, after: page.data.next }); }} data-testid="audit-older">{t('audit.older')}</Button>
      </nav>
    </div>
  );
}
