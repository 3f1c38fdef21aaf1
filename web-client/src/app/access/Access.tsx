// For administrators: emergency access that waits for a review, and what a user can see.
import { keepPreviousData, useMutation, useQuery } from '@tanstack/react-query';
import { timeFormat } from '../../core/time/time';
import { useState } from 'react';
import { glass, identity } from '../../core/api/endpoints';
import type { EmergencyAccess } from '../../core/api/types';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { AdminPages } from '../admin/AdminPages';
import { people } from '../admin/api';
import { hub, queries } from '../hub';
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

function Reviews() {
  const t = useT();
  const open = useQuery({ queryKey: ['glass-reviews'], queryFn: () => glass.list(hub.api) });
  return (
    <section aria-labelledby="reviews">
      <h2 id="reviews">{t('access.reviews')}</h2>
      {open.isError ? <ErrorState error={open.error} onRetry={() => void open.refetch()} /> : !open.data ? <Skeleton /> : open.data.accesses.length === 0
        ? <p className="muted" data-testid="no-reviews">{t('access.no_reviews')}</p>
        : <ul className="access-list">{open.data.accesses.map((a) => <Review key={a.id} access={a} />)}</ul>}
    </section>
  );
}

function Review({ access }: { access: EmergencyAccess }) {
  const t = useT();
  const language = useLanguage();
  const [text, setText] = useState('');
  const done = useMutation({
    mutationFn: () => glass.review(hub.api, access.id, text),
    onSuccess: () => void queries.invalidateQueries({ queryKey: ['glass-reviews'] }),
  });
  const at = timeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(access.at));
  return (
    <li className="card" data-testid="emergency">
      <strong>{t('access.who_when', { name: access.name, at })}</strong>
      <p>{access.text}</p>
      <form className="access-form" onSubmit={(event) => { event.preventDefault(); done.mutate(); }}>
        <label className="field"><span className="field-label">{t('access.finding')}</span>
          <input className="field-input" value={text} minLength={3} maxLength={1000} required onChange={(event) => setText(event.target.value)} data-testid="review-text" />
        </label>
        <Button type="submit" busy={done.isPending} data-testid="review-done">{t('access.reviewed')}</Button>
      </form>
      {done.isError ? <Notice tone="danger">{t('error.server')}</Notice> : null}
    </li>
  );
}

function Sees() {
  const t = useT();
  const [search, setSearch] = useState('');
  const [user, setUser] = useState('');
  const found = useQuery({ queryKey: ['access-people', search], queryFn: () => people.list(hub.api, search, ''), placeholderData: keepPreviousData });
  const [patient, setPatient] = useState('');
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
        <label className="field"><span className="field-label">{t('access.patient')}</span>
          <input className="field-input" value={patient} onChange={(event) => setPatient(event.target.value)} />
        </label>
        <Button type="submit" busy={ask.isPending} data-testid="sees-ask">{t('access.explain')}</Button>
      </form>
      {ask.isError ? <ErrorState error={ask.error} /> : null}
      {decision ? (
        <Notice tone={decision.allow ? 'good' : 'warn'} title={t(decision.allow ? 'access.allowed' : 'access.denied')}>
          <ol>{decision.steps.map((s) => <li key={`${s.step}-${s.because}`}>{s.step}: {s.because}</li>)}</ol>
        </Notice>
      ) : null}
      {ask.data ? (
        <table data-testid="sees">
          <thead><tr><th scope="col">{t('access.kind')}</th><th scope="col">{t('access.read')}</th><th scope="col">{t('access.write')}</th></tr></thead>
          <tbody>
            {ask.data.sees.map((s) => (
              <tr key={s.kind}>
                <th scope="row">{s.kind}</th>
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
