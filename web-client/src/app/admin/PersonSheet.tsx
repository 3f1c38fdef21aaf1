// One person: name, roles, who they are in the record, and what can be done with their account.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import type { MessageKey } from '../../core/i18n/i18n';
import { fhir } from '../../core/api/fhir';
import { plainDate } from '../../core/time/time';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { Sheet } from '../ui/Sheet';
import { people, type Act, type PersonDetail, type Standing } from './api';
import { RoleChoices, rolesOf, STANDING } from './People';

const ACTS: Record<Standing, ReadonlyArray<[Act, MessageKey]>> = {
  active: [['end-sessions', 'people.end_sessions'], ['reset', 'people.reset'], ['lock', 'people.lock']],
  invited: [['invite', 'people.resend'], ['withdraw', 'people.withdraw']],
  expired: [['invite', 'people.resend'], ['withdraw', 'people.withdraw']],
  locked: [['unlock', 'people.unlock']],
};

export function PersonSheet({ id, onClose }: { id: string; onClose: () => void }) {
  const t = useT();
  const one = useQuery({ queryKey: ['person', id], queryFn: () => people.one(hub.api, id) });
  return (
    <Sheet open title={one.data?.name ?? t('admin.people')} onClose={onClose} testId="person-sheet">
      {one.isError ? <ErrorState error={one.error} onRetry={() => void one.refetch()} /> : one.data ? <Person person={one.data} onClose={onClose} /> : <Skeleton lines={5} />}
    </Sheet>
  );
}

function Person({ person, onClose }: { person: PersonDetail; onClose: () => void }) {
  const t = useT();
  const renew = () => Promise.all([queries.invalidateQueries({ queryKey: ['people'] }), queries.invalidateQueries({ queryKey: ['person', person.id] })]);
  const save = useMutation({ mutationFn: (edit: Parameters<typeof people.edit>[2]) => people.edit(hub.api, person.id, edit), onSuccess: renew });
  const act = useMutation({ mutationFn: (what: Act) => people.act(hub.api, person.id, what), onSuccess: renew });
  // It takes away what somebody signs in with, and nothing brings that back: asked once.
  const [resetting, setResetting] = useState(false);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const roles = rolesOf(data);
    const changed = roles.length !== person.roles.length || roles.some((r) => !person.roles.includes(r));
    const email = String(data.get('email')).trim();
    save.mutate({ name: String(data.get('name')), ...(email === person.email ? {} : { email }), ...(changed ? { roles } : {}) }, { onSuccess: onClose });
  };
  return (
    <>
      <p><span className="chip" data-tone={STANDING[person.standing].tone}>{t(STANDING[person.standing].key)}</span> <span className="muted small">{t('people.sessions', { count: person.sessions })}</span></p>
      <Failed error={save.error ?? act.error} />
      <form className="signin-form" onSubmit={submit} key={`${person.name}${person.email}${person.roles.join()}`}>
        <label className="field"><span className="field-label">{t('people.name')}</span><input className="field-input" name="name" required defaultValue={person.name} data-testid="person-name" /></label>
        <label className="field"><span className="field-label">{t('people.email')}</span><input className="field-input" name="email" type="email" required maxLength={254} defaultValue={person.email} autoComplete="off" aria-describedby="person-email-text" data-testid="person-email" /><span id="person-email-text" className="muted small">{t('people.email_text')}</span></label>
        <RoleChoices chosen={person.roles} />
        <Button type="submit" variant="primary" busy={save.isPending} data-testid="person-save">{t('people.save')}</Button>
      </form>
      <Record person={person} onLink={(edit) => save.mutate(edit)} />
      {resetting ? (
        <>
          <Notice tone="warn" title={t('people.reset_sure', { name: person.name })}>{t('people.reset_text')}</Notice>
          <div className="form-acts">
            <Button onClick={() => setResetting(false)}>{t('common.cancel')}</Button>
            <Button variant="danger" busy={act.isPending} onClick={() => act.mutate('reset', { onSettled: () => setResetting(false) })} data-testid="act-reset-sure">{t('people.reset')}</Button>
          </div>
        </>
      ) : (
        <div className="form-acts">
          {ACTS[person.standing].map(([what, name]) => (
            <Button key={what} variant={what === 'lock' ? 'danger' : 'secondary'} busy={act.isPending && act.variables === what} disabled={act.isPending}
              onClick={() => { if (what === 'reset') setResetting(true); else act.mutate(what); }} data-testid={`act-${what}`}>{t(name)}</Button>
          ))}
        </div>
      )}
    </>
  );
}

function Record({ person, onLink }: { person: PersonDetail; onLink: (edit: { practitioner_id?: string; patient_id?: string }) => void }) {
  const t = useT();
  const language = useLanguage();
  const [kind, setKind] = useState<'patient' | 'practitioner'>(person.roles.includes('patient') ? 'patient' : 'practitioner');
  const [search, setSearch] = useState('');
  const linked = kind === 'patient' ? person.patient_id : person.practitioner_id;
  const found = useQuery({ queryKey: ['records', kind, search], queryFn: () => people.records(hub.api, kind, search), enabled: search.trim().length > 1 && !linked });
  const name = useQuery({ queryKey: ['record-name', kind, linked], queryFn: () => fhir.nameOf(hub.api, kind === 'patient' ? 'Patient' : 'Practitioner', linked ?? ''), enabled: Boolean(linked), staleTime: 300_000 });
  const link = (record: string) => onLink(kind === 'patient' ? { patient_id: record } : { practitioner_id: record });
  return (
    <fieldset className="choices">
      <legend>{t('people.record')}</legend>
      <select className="field-input" value={kind} onChange={(e) => setKind(e.target.value as 'patient' | 'practitioner')} aria-label={t('people.record')}>
        <option value="patient">{t('people.record_patient')}</option>
        <option value="practitioner">{t('people.record_practitioner')}</option>
      </select>
      {linked ? <div className="thing"><div><strong data-testid="record-name">{name.data ?? (name.isError ? linked : '…')}</strong></div><Button size="s" onClick={() => link('')}>{t('people.unlink')}</Button></div> : (
        <>
          <label className="field"><span className="small muted">{t('people.record_search')}</span><input className="field-input" type="search" value={search} onChange={(e) => setSearch(e.target.value)} data-testid="record-search" /></label>
          <ul className="things">{(found.data?.records ?? []).map((r) => (
            <li key={r.id} className="thing"><div><strong>{r.name}</strong>{r.birth_date ? <span className="muted small">{t('people.born', { date: plainDate(r.birth_date, language) })}</span> : null}</div>
              <Button size="s" onClick={() => link(r.id)} data-testid="record-link">{t('people.link')}</Button></li>
          ))}</ul>
        </>
      )}
    </fieldset>
  );
}
