// The ways in: a passkey, a password (with its second step), or a link by mail. Used on the sign-in page, and when a session
// ends in the middle of work.
import { useEffect, useRef, useState, type FormEvent } from 'react';
import type { Ticket } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { autofillHere, passkeysHere, wasCancelled } from '../../core/webauthn/passkeys';
import { Icon } from '../../ui/Icon';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hint } from '../../core/session/session';
import { hub } from '../hub';
import { messageFor } from './messages';
import { SecondStep } from './SecondStep';

/** A passkey offered among the browser's suggestions is asked for anew before the server forgets it. */
const RENEW_MS = 4 * 60_000;
/** Tokens by which a browser may put passkeys among its suggestions (WebAuthn, 5.8; HTML, 4.10.18.7). */
const PASSKEY_OR = { name: 'username webauthn', password: 'current-password webauthn' };

type Busy = 'passkey' | 'password' | 'link' | 'forgotten';

export function SignInForm({ onDone, links = false }: { onDone: () => void; /** Whether a link by mail is offered. */ links?: boolean }) {
  const t = useT();
  const [busy, setBusy] = useState<Busy | null>(null);
  const [problem, setProblem] = useState<MessageKey | null>(null);
  const [ticket, setTicket] = useState<Ticket | null>(null);
  const [sentTo, setSentTo] = useState<string | null>(null);
  const email = useRef<HTMLInputElement>(null);
  const suggest = useSuggestions(onDone, busy === null && ticket === null && sentTo === null);

  const run = async (what: Busy, act: () => Promise<void>) => {
    setBusy(what);
    setProblem(null);
    try {
      await act();
    } catch (error) {
      if (!wasCancelled(error)) setProblem(messageFor(error, 'signin.wrong'));
    } finally {
      setBusy(null);
    }
  };
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    void run('password', async () => {
      const asked = await hub.signIn(String(data.get('email') ?? '').trim(), String(data.get('password') ?? ''));
      if (asked) setTicket(asked);
      else onDone();
    });
  };
  const passkey = () => void run('passkey', async () => {
    suggest.stop();
    await hub.signInPasskey();
    onDone();
  });
  const mail = (what: 'link' | 'forgotten') => () => {
    const field = email.current;
    if (!field?.reportValidity()) return;
    const address = field.value.trim();
    void run(what, async () => {
      await (what === 'link' ? hub.requestLink(address) : hub.forgotten(address));
      setSentTo(address);
    });
  };

  if (ticket) return <SecondStep ticket={ticket} onDone={onDone} onBack={(why) => { setTicket(null); setProblem(why); }} />;
  if (sentTo !== null) {
    return (
      <div className="empty" role="status" data-testid="link-sent">
        <span className="empty-icon"><Icon name="send" size={26} /></span>
        <h2>{t('links.sent')}</h2>
        <p>{t('links.sent_text', { email: sentTo })}</p>
        <Button variant="ghost" onClick={() => setSentTo(null)}>{t('common.back')}</Button>
      </div>
    );
  }
  const wrong = problem === 'signin.wrong' || undefined;
  return (
    <div className="signin">
      {problem ? <Notice tone="danger" testId="signin-error">{t(problem)}</Notice> : null}
      {passkeysHere() ? (
        <>
          <Button variant="primary" size="l" icon="key" busy={busy === 'passkey'} disabled={busy !== null} onClick={passkey} data-testid="signin-passkey">{t('signin.passkey')}</Button>
          <p className="signin-or"><span>{t('signin.or')}</span></p>
        </>
      ) : null}
      <form className="signin-form" onSubmit={submit}>
        <label className="field"><span className="field-label">{t('signin.email')}</span>
          <input ref={email} className="field-input" name="email" type="email" defaultValue={hint.read()} autoComplete={PASSKEY_OR.name} required aria-invalid={wrong} data-testid="signin-email" /></label>
        <label className="field"><span className="field-label">{t('signin.password')}</span>
          <input className="field-input" name="password" type="password" autoComplete={PASSKEY_OR.password} required maxLength={512} aria-invalid={wrong} data-testid="signin-password" /></label>
        <Button type="submit" variant={passkeysHere() ? 'secondary' : 'primary'} size="l" busy={busy === 'password'} disabled={busy !== null} data-testid="signin-submit">{t('signin.submit')}</Button>
        {links ? <Button variant="ghost" icon="send" busy={busy === 'link'} disabled={busy !== null} onClick={mail('link')} data-testid="signin-link">{t('signin.link')}</Button> : null}
        {links ? <Button variant="ghost" size="s" busy={busy === 'forgotten'} disabled={busy !== null} onClick={mail('forgotten')} data-testid="signin-forgotten">{t('signin.forgotten')}</Button> : null}
      </form>
    </div>
  );
}

/** Offers passkeys among the suggestions of the e-mail field (conditional mediation), where the browser can. */
function useSuggestions(onDone: () => void, wanted: boolean): { stop: () => void } {
  const done = useRef(onDone);
  const running = useRef<AbortController | null>(null);
  useEffect(() => { done.current = onDone; });
  useEffect(() => {
    if (!wanted) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let gone = false;
    const offer = async () => {
      if (gone || !(await autofillHere())) return;
      const control = new AbortController();
      running.current = control;
      timer = setTimeout(() => { control.abort(); void offer(); }, RENEW_MS);
      try {
        await hub.signInPasskey({ signal: control.signal, autofill: true });
        done.current();
      } catch {
        // Nobody picked one, or the request was put aside: the other ways stand.
      }
    };
    void offer();
    return () => { gone = true; clearTimeout(timer); running.current?.abort(); };
  }, [wanted]);
  return { stop: () => running.current?.abort() };
}
