// For administrators: emergency access that waits for a review, and what a user can see.
import { keepPreviousData, useMutation, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { identity } from '../../core/api/endpoints';
import type { AccessAnswer } from '../../core/api/types';
import type { T } from '../../core/i18n/i18n';
import { plainDate } from '../../core/time/time';
import { Button, ErrorState, Notice } from '../../ui/parts';
import { Icon } from '../../ui/Icon';
import { useLanguage, useT } from '../../ui/store';
import { AdminPages } from '../admin/AdminPages';
import { people } from '../admin/api';
import { hub } from '../hub';
import { because, capital, kindName } from '../words';
import { Reviews } from './Reviews';
import '../breakglass/breakglass.css';

export function Access() {
  const t = useT();
  return (
    <AdminPages lead={t('access.lead')}>
      <div className="access">
        <Reviews />
        <Sees />
      </div>
    </AdminPages>
  );
}

/** Each reason once: the same is asked for several kinds of records. */
function stepsOf(t: T, steps: NonNullable<AccessAnswer['decision']>['steps']): Array<{ words: string; pass: boolean }> {
  const said = new Map(steps.map((s) => [because(t, s.because), s.pass]));
  return [...said].map(([words, pass]) => ({ words, pass }));
}

function Sees() {
  const t = useT();
  const language = useLanguage();
  const [search, setSearch] = useState('');
  const [user, setUser] = useState('');
  const found = useQuery({ queryKey: ['access-people', search], queryFn: () => people.list(hub.api, search, ''), placeholderData: keepPreviousData });
  const [patientSearch, setPatientSearch] = useState('');
  const [patient, setPatient] = useState('');
  const patients = useQuery({
    queryKey: ['access-patients', patientSearch], queryFn: () => people.records(hub.api, 'patient', patientSearch),
    enabled: patientSearch.trim().length >= 2, placeholderData: keepPreviousData,
  });
  const ask = useMutation({ mutationFn: () => identity.decide(hub.api, user.trim(), patient.trim()) });
  const decision = ask.data?.decision;
  return (
    <section aria-labelledby="sees">
      <h2 id="sees">{t('access.sees')}</h2>
      <form className="access-form" onSubmit={(event) => { event.preventDefault(); ask.mutate(); }}>
        <label className="field"><span className="field-label">{t('access.search')}</span>
          <input className="field-input" type="search" value={search} onChange={(event) => setSearch(event.target.value)} data-testid="sees-search" />
        </label>
        <label className="field"><span className="field-label">{t('access.user')}</span>
          <select className="field-input" value={user} required onChange={(event) => setUser(event.target.value)} data-testid="sees-user">
            <option value="">{t('access.choose')}</option>
            {found.data?.users.map((p) => <option key={p.id} value={p.id}>{p.name}</option>)}
          </select>
        </label>
        <label className="field"><span className="field-label">{t('access.patient_search')}</span>
          <input className="field-input" type="search" value={patientSearch} onChange={(event) => { setPatientSearch(event.target.value); setPatient(''); }} data-testid="sees-patient-search" />
        </label>
        <label className="field"><span className="field-label">{t('access.patient_choose')}</span>
          <select className="field-input" value={patient} onChange={(event) => setPatient(event.target.value)} data-testid="sees-patient">
            <option value="">{t('access.patient_any')}</option>
            {patients.data?.records.map((p) => <option key={p.id} value={p.id}>{p.birth_date ? `${p.name}, ${t('people.born', { date: plainDate(p.birth_date, language) })}` : p.name}</option>)}
          </select>
        </label>
        <Button type="submit" busy={ask.isPending} data-testid="sees-ask">{t('access.explain')}</Button>
      </form>
      {ask.isError ? <ErrorState error={ask.error} /> : null}
      {decision ? (
        <Notice tone={decision.allow ? 'good' : 'warn'} title={t(decision.allow ? 'access.allowed' : 'access.denied')}>
          <ol className="access-steps">{stepsOf(t, decision.steps).map((s) => <li key={s.words}><Icon name={s.pass ? 'check' : 'close'} size={16} /><span className="sr-only">{t(s.pass ? 'because.passed' : 'because.stopped')}: </span>{s.words}</li>)}</ol>
        </Notice>
      ) : null}
      {ask.data ? (
        <table className="rules" data-testid="sees">
          <thead><tr><th scope="col">{t('access.kind')}</th><th scope="col">{t('access.read')}</th><th scope="col">{t('access.write')}</th></tr></thead>
          <tbody>
            {ask.data.sees.map((s) => (
              <tr key={s.kind}>
                <th scope="row">{capital(kindName(t, s.kind))}</th>
                <td>{t(`access.reach_${s.read}`)}{s.patients === undefined ? '' : ` (${s.patients})`}</td>
                <td>{t(`access.reach_${s.write}`)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : null}
    </section>
  );
}
