// An application asks for access: who it is, what for, about whom. The person ticks, allows or refuses.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useSearch } from '@tanstack/react-router';
import { useState } from 'react';
import { oauth } from '../../core/api/endpoints';
import { asApiError } from '../../core/api/problem';
import type { AuthorizationRequest, ScopeWord } from '../../core/api/types';
import { Icon } from '../../ui/Icon';
import { LanguagePicker } from '../../ui/LanguagePicker';
import { Brand, Button, EmptyState, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';
import { problemText } from '../words';
import { hub, useUser } from '../hub';
import { PatientPicker, usePatient } from './Patients';
import { howLong, lines, ofWhom } from './words';
import './authorize.css';

export function Authorize() {
  const t = useT();
  const { request } = useSearch({ from: '/app/authorize' });
  useTitle(t('consent.title'));
  const asked = useQuery({
    queryKey: ['authorization', request], queryFn: () => oauth.request(hub.api, request), retry: false, refetchOnWindowFocus: false,
  });
  const gone = asked.isError && asApiError(asked.error).status === 404;
  return (
    <div className="door consent-door">
      <header className="door-top"><Brand /><LanguagePicker /></header>
      <main className="door-card card consent">
        {gone ? <EmptyState icon="clock" title={t('consent.gone')}>{t('consent.gone_text')}</EmptyState>
          : asked.isError ? <ErrorState error={asked.error} onRetry={() => void asked.refetch()} />
          : asked.data ? <Ask request={request} asked={asked.data} /> : <Skeleton lines={6} />}
      </main>
    </div>
  );
}

/** Whether what is left ticked goes on beyond one access token. */
function lasting(asked: AuthorizationRequest, off: ReadonlySet<string>): boolean {
  return asked.scopes.some(({ scope }) => ['offline_access', 'online_access'].includes(scope) && !off.has(scope));
}

function Ask({ request, asked }: { request: string; asked: AuthorizationRequest }) {
  const t = useT();
  const user = useUser();
  const only = asked.patient.among?.length === 1 ? (asked.patient.among[0] ?? null) : null;
  const [off, setOff] = useState<ReadonlySet<string>>(new Set());
  const [patient, setPatient] = useState<string | null>(asked.patient.fixed ?? only);
  const who = usePatient(patient);
  const app = asked.client.name;
  const decide = useMutation({
    mutationFn: (allow: boolean) => oauth.decide(hub.api, request, {
      allow, scopes: asked.scopes.map((s) => s.scope).filter((s) => !off.has(s)), ...(patient === null ? {} : { patient }),
    }),
    // Out of the app: the answer belongs to the application.
    onSuccess: ({ redirect }) => location.assign(redirect),
  });
  const toggle = (words: readonly ScopeWord[], on: boolean) => setOff((before) => {
    const next = new Set(before);
    for (const { scope } of words) if (on) next.delete(scope); else next.add(scope);
    return next;
  });
  const missing = asked.patient.needed && patient === null;
  const busy = decide.isPending || decide.isSuccess;
  return (
    <>
      <span className="consent-icon" aria-hidden="true"><Icon name="link" size={26} /></span>
      <h1>{t('consent.heading', { app })}</h1>
      <p className="muted">{t('consent.to', { host: asked.redirect_host, name: user?.name ?? '' })}</p>
      {asked.patient.fixed ? (
        <p className="consent-fixed" data-testid="consent-fixed"><Icon name="people" size={18} /><span>{t('consent.about', { name: who.data?.name ?? asked.patient.fixed })}</span></p>
      ) : asked.patient.needed ? <PatientPicker among={asked.patient.among} chosen={patient} onChoose={setPatient} /> : null}
      <fieldset className="consent-scopes">
        <legend>{t('consent.scopes', { app })}</legend>
        {lines(t, asked.scopes).map(({ text, words }) => {
          const fixed = words.every((w) => w.fixed);
          const on = !words.every((w) => off.has(w.scope));
          const whose = words[0] ? ofWhom(t, words[0], who.data?.name ?? null) : null;
          return (
            <label key={words.map((w) => w.scope).join(' ')} className="consent-line" data-on={on || undefined}>
              <input type="checkbox" checked={on} disabled={fixed} onChange={(e) => toggle(words, e.target.checked)} data-testid="consent-scope" data-scope={words.map((w) => w.scope).join(' ')} />
              <span><strong>{text}</strong>{whose ? <span className="muted">{whose}</span> : fixed ? <span className="muted">{t('consent.fixed')}</span> : null}</span>
            </label>
          );
        })}
      </fieldset>
      <p className="small" data-testid="consent-lasts">{t('consent.lasts', { app, time: howLong(t, lasting(asked, off) ? asked.lasts : asked.expires_in) })}</p>
      {decide.isError ? <Notice tone="danger" testId="consent-error">{problemText(t, decide.error)}</Notice> : null}
      <p className="small muted">{t('consent.note', { app })}</p>
      <div className="consent-acts">
        <Button size="l" disabled={busy} onClick={() => decide.mutate(false)} data-testid="consent-refuse">{t('consent.refuse')}</Button>
        <Button size="l" variant="primary" busy={busy && decide.variables === true} disabled={busy || missing} onClick={() => decide.mutate(true)} data-testid="consent-allow">{t('consent.allow')}</Button>
      </div>
      {missing ? <p className="small muted" role="status">{t('consent.patient_first')}</p> : null}
    </>
  );
}
