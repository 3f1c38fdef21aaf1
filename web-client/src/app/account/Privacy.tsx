// Who has seen the record, in plain words; who may act for the patient; which apps were let in.
import { useInfiniteQuery, useMutation, useQuery } from '@tanstack/react-query';
import { timeFormat } from '../../core/time/time';
import type { MessageKey, T } from '../../core/i18n/i18n';
import { asApiError } from '../../core/api/problem';
import { Button, EmptyState, ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { lines as permissions, wordOf } from '../authorize/words';
import { Failed } from '../ui/Failed';
import { capital, kindName } from '../words';
import { saveBlob } from '../ui/save';
import { AccountPages } from './AccountPages';
import { account, type ConnectedApp, type LogLine } from './api';
import { ActingFor, Proxies } from './Proxies';

const ACTIONS: Record<string, MessageKey> = { read: 'privacy.read', create: 'privacy.create', update: 'privacy.update', delete: 'privacy.delete' };
const ROLES: Record<string, MessageKey> = {
  admin: 'privacy.role_admin', clinician: 'privacy.role_clinician', staff: 'privacy.role_staff', patient: 'privacy.role_patient',
  guest: 'privacy.role_guest', device: 'privacy.role_device', system: 'privacy.role_system',
};

/** What is no kind of record, in the patient's own words. */
const KINDS: Record<string, MessageKey> = {
  Message: 'privacy.kind_messages', File: 'privacy.kind_file', Encounter: 'privacy.kind_visit', Appointment: 'privacy.kind_appointment',
};

/** One line of the log as a sentence. */
export function sentence(t: T, line: LogLine): string {
  const role = t(ROLES[line.who.role] ?? 'privacy.role_user');
  const who = line.who.you ? t('privacy.you') : line.who.name ? `${line.who.name} (${role})` : role;
  const text = t(ACTIONS[line.action] ?? 'privacy.execute', { who, what: line.what.map((kind) => (KINDS[kind] ? t(KINDS[kind]) : kindName(t, kind))).join(', ') });
  return capital(text);
}

export function Privacy() {
  const t = useT();
  const own = useQuery({ queryKey: ['profile'], queryFn: () => account.profile(hub.api), staleTime: Infinity });
  return (
    <AccountPages lead={t('privacy.lead')}>
      {own.data === undefined ? <Skeleton lines={6} /> : own.data.has_record ? <><AccessLog /><Proxies /></> : (
        <section className="card panel"><EmptyState icon="shield" title={t('privacy.no_record')}>{t('privacy.no_record_text')}</EmptyState></section>
      )}
      <ActingFor />
      <Apps />
    </AccountPages>
  );
}

function AccessLog() {
  const t = useT();
  const language = useLanguage();
  const log = useInfiniteQuery({
    queryKey: ['access-log'], initialPageParam: undefined as number | undefined,
    queryFn: ({ pageParam }) => account.log(hub.api, pageParam), getNextPageParam: (page) => page.next ?? undefined,
    refetchOnWindowFocus: false,
  });
  const save = useMutation({ mutationFn: async (format: 'csv' | 'fhir') => saveBlob(await account.logFile(hub.api, format), `access-log.${format === 'csv' ? 'csv' : 'json'}`) });
  const lines = log.data?.pages.flatMap((page) => page.entries);
  const at = timeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });
  return (
    <section className="card panel" aria-label={t('privacy.log')}>
      <div className="panel-head">
        <div><h2>{t('privacy.log')}</h2><p className="muted">{t('privacy.log_text')}</p></div>
        <div className="form-acts">
          <Button size="s" icon="file" busy={save.isPending} onClick={() => save.mutate('csv')} data-testid="log-csv">{t('privacy.csv')}</Button>
          <Button size="s" icon="file" busy={save.isPending} onClick={() => save.mutate('fhir')} data-testid="log-fhir">{t('privacy.fhir')}</Button>
        </div>
      </div>
      <Failed error={save.error} />
      {log.isError ? <ErrorState error={log.error} onRetry={() => void log.refetch()} /> : lines === undefined ? <Skeleton lines={5} />
        : lines.length === 0 ? <p className="muted">{t('privacy.none')}</p> : (
          <ol className="things">{lines.map((line, i) => (
            <li key={`${line.at}${i}`} className="thing" data-testid="log-line">
              <div><span>{sentence(t, line)}</span><span className="muted small num">{at.format(new Date(line.at))}</span></div>
              <div className="thing-acts">
                {line.emergency ? <span className="chip" data-tone="danger">{t('privacy.emergency')}</span> : null}
                {line.outcome === 'denied' ? <span className="chip" data-tone="warn">{t('privacy.denied')}</span> : null}
              </div>
            </li>
          ))}</ol>
        )}
      {log.hasNextPage ? <div className="form-acts"><Button busy={log.isFetchingNextPage} onClick={() => void log.fetchNextPage()}>{t('privacy.more')}</Button></div> : null}
    </section>
  );
}

/** Shown where the clinic lets applications in. */
function Apps() {
  const t = useT();
  const apps = useQuery({ queryKey: ['apps'], queryFn: () => account.apps(hub.api), retry: false });
  const end = useMutation({ mutationFn: (app: string) => account.endApp(hub.api, app), onSuccess: () => queries.invalidateQueries({ queryKey: ['apps'] }) });
  if (apps.data === undefined || !Array.isArray(apps.data.apps) || (apps.isError && asApiError(apps.error).status === 404)) return null;
  return (
    <section className="card panel" aria-label={t('apps.title')}>
      <h2>{t('apps.title')}</h2>
      <Failed error={end.error} />
      {apps.data.apps.length === 0 ? <p className="muted">{t('apps.none')}</p> : (
        <ul className="things">{apps.data.apps.map((app) => <AppRow key={app.id} app={app} onEnd={() => end.mutate(app.id)} />)}</ul>
      )}
    </section>
  );
}

/** What one application may do, each permission in words and to be taken back by itself. */
function AppRow({ app, onEnd }: { app: ConnectedApp; onEnd: () => void }) {
  const t = useT();
  const narrow = useMutation({
    mutationFn: (without: string[]) => account.narrowApp(hub.api, app.id, without), onSuccess: () => queries.invalidateQueries({ queryKey: ['apps'] }),
  });
  const all = permissions(t, app.scopes.map(wordOf));
  return (
    <li className="thing app-row" data-testid="app">
      <div>
        <strong>{app.name}</strong>
        <Failed error={narrow.error} />
        <ul className="app-scopes">
          {all.map(({ text, words }) => {
            const scopes = words.map((w) => w.scope);
            const fixed = scopes.every((s) => ALWAYS.includes(s));
            return (
              <li key={scopes.join(' ')} data-testid="app-scope" data-scope={scopes.join(' ')}>
                <span>{text}</span>
                {fixed ? null : <Button size="s" variant="ghost" busy={narrow.isPending && narrow.variables.join(' ') === scopes.join(' ')} aria-label={t('apps.take_back_this', { what: text })} onClick={() => narrow.mutate(scopes)} data-testid="app-take-back">{t('apps.take_back')}</Button>}
              </li>
            );
          })}
        </ul>
      </div>
      <Button onClick={onEnd} data-testid="app-end">{t('apps.end')}</Button>
    </li>
  );
}

/** Without these an application has no access at all: it is disconnected instead. */
const ALWAYS = ['openid', 'launch', 'launch/patient', 'launch/encounter'];
