// The entries as a table; on a phone each is a card. A person, thing or patient is a button that shows only what concerns it.
import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { audit } from '../../core/api/endpoints';
import type { AuditEntry, AuditPerson } from '../../core/api/types';
import { timeFormat } from '../../core/time/time';
import type { MessageKey, T } from '../../core/i18n/i18n';
import { ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub } from '../hub';
import { capital, thingName } from '../words';
import type { AuditSearch } from './search';

interface Props {
  entries: readonly AuditEntry[];
  people: Record<string, AuditPerson>;
  zone: string;
  onPick: (search: AuditSearch) => void;
}

/** Characters of a detail that are shown at once. */
const LONG = 120;
const KNOWN = ['read', 'create', 'update', 'delete', 'execute'];

export function actionName(t: T, action: string): string {
  return KNOWN.includes(action) ? t(`audit.action_${action}` as MessageKey) : action;
}

export function Entries({ entries, people, zone, onPick }: Props) {
  const t = useT();
  const language = useLanguage();
  const time = timeFormat(language, { dateStyle: 'medium', timeStyle: 'medium', timeZone: zone });
  // What a button says begins with what stands on it.
  const said = (target: string) => {
    const { words, id } = thingName(t, target);
    return people[target]?.name ?? [capital(words), id].filter(Boolean).join(' ');
  };
  return (
    <table className="audit-table">
      <caption className="sr-only">{t('audit.entries')}</caption>
      <thead>
        <tr>
          <th scope="col">{t('audit.time')}</th><th scope="col">{t('audit.who')}</th><th scope="col">{t('audit.action')}</th>
          <th scope="col">{t('audit.what')}</th><th scope="col">{t('audit.patient')}</th><th scope="col">{t('audit.detail')}</th>
        </tr>
      </thead>
      <tbody>
        {entries.map((e) => (
          <tr key={e.seq} data-testid="audit-entry" data-seq={e.seq} data-denied={e.outcome === 'denied' || undefined}>
            <td className="num"><time dateTime={e.at}>{time.format(new Date(e.at))}</time></td>
            <td data-label={t('audit.who')}>
              <Pick label={t('audit.only', { name: said(e.actor) })} onPick={() => onPick({ actor: e.actor })}>{people[e.actor]?.name ?? <Thing target={e.actor} />}</Pick>
              {e.issued === 'machine' ? <> <span className="chip" data-tone="danger">{t('audit.machine')}</span></> : null}
              {e.network ? <div className="muted">{t('audit.network', { network: e.network })}</div> : null}
              {e.session ? <div><Pick label={`${t('audit.same_session')} ${e.session}`} onPick={() => onPick({ session: e.session ?? '' })}>{t('audit.same_session')}</Pick></div> : null}
            </td>
            <td data-label={t('audit.action')}>
              {actionName(t, e.action)}{e.outcome === 'denied' ? <> <span className="chip" data-tone="danger">{t('audit.outcome_denied')}</span></> : null}
            </td>
            <td data-label={t('audit.what')}><Pick label={t('audit.only', { name: said(e.target) })} onPick={() => onPick({ target: e.target })}>{people[e.target]?.name ?? <Thing target={e.target} />}</Pick></td>
            <td data-label={t('audit.patient')} data-empty={(!e.patient && !e.patients) || undefined}>
              {e.patient ? <Pick label={t('audit.only', { name: `Patient/${e.patient}` })} onPick={() => onPick({ target: `Patient/${e.patient}` })}>{e.patient}</Pick> : null}
              {e.patients ? <Concerned entry={e} onPick={onPick} /> : null}
            </td>
            <td data-label={t('audit.detail')} data-empty={e.detail === '' || undefined} className="muted"><Detail text={e.detail} /></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The patients of an entry about several. They are asked for when somebody opens the list: that look is an entry, too. */
function Concerned({ entry, onPick }: { entry: AuditEntry; onPick: Props['onPick'] }) {
  const t = useT();
  const [open, setOpen] = useState(false);
  const list = useQuery({
    queryKey: ['audit-patients', entry.seq], queryFn: () => audit.patients(hub.api, entry.seq), enabled: open, staleTime: Infinity, refetchOnWindowFocus: false,
  });
  return (
    <details className="audit-concerned" onToggle={(event) => setOpen(event.currentTarget.open)} data-testid="audit-concerned">
      <summary>{t('audit.patients', { count: entry.patients ?? 0 })}</summary>
      {list.isError ? <ErrorState error={list.error} onRetry={() => void list.refetch()} /> : list.data === undefined ? (open ? <Skeleton lines={2} /> : null)
        : list.data.patients.map((id) => <div key={id}><Pick label={t('audit.only', { name: `Patient/${id}` })} onPick={() => onPick({ target: `Patient/${id}` })}>{id}</Pick></div>)}
    </details>
  );
}

/** What it is in words, and its name in this house, small. */
function Thing({ target }: { target: string }) {
  const { words, id } = thingName(useT(), target);
  return <>{capital(words)}{id === '' ? null : <>{' '}<span className="audit-id">{id}</span></>}</>;
}

/** A transaction names all that it changed: its beginning, and the rest when asked for. */
function Detail({ text }: { text: string }) {
  if (text.length <= LONG) return <>{text}</>;
  const parts = text.split(', ');
  return <details><summary>{parts[0]}{parts.length > 1 ? ` +${parts.length - 1}` : null}</summary>{parts.slice(1).map((part) => <div key={part}>{part}</div>)}</details>;
}

function Pick({ label, onPick, children }: { label: string; onPick: () => void; children: ReactNode }) {
  return <button type="button" className="audit-pick" title={label} aria-label={label} onClick={onPick}>{children}</button>;
}
