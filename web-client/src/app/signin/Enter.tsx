// A sign-in link: gone from the address bar before anything else happens, and opened by a request that no mail scanner makes.
import { useNavigate, useRouter } from '@tanstack/react-router';
import { useCallback, useEffect, useState, type FormEvent } from 'react';
import { asApiError, type ApiError } from '../../core/api/problem';
import type { MessageKey } from '../../core/i18n/i18n';
import { homeOf } from '../../core/session/hub';
import { takeLink, wanted } from '../../core/session/session';
import { Icon } from '../../ui/Icon';
import { LanguagePicker } from '../../ui/LanguagePicker';
import { Brand, Button, Notice, Spinner } from '../../ui/parts';
import { takeFocus, useT, useTitle } from '../../ui/store';
import { hub } from '../hub';
import { messageFor } from './messages';

/** Outside the component: an effect may run twice, a link is good once. */
let link: string | null = null;
let exchange: Promise<void> | null = null;

const TEXTS: Record<string, [title: MessageKey, text: MessageKey]> = {
  'link.used': ['enter.used', 'enter.text'],
  'password.ask_administrator': ['reset.administrator', 'reset.administrator_text'],
  'link.other_browser': ['enter.other_browser', 'enter.other_browser_text'],
  network: ['error.title', 'error.network'],
};

export function Enter() {
  const t = useT();
  const navigate = useNavigate();
  const router = useRouter();
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const [weak, setWeak] = useState<MessageKey | null>(null);
  const [done, setDone] = useState(false);
  /** The reset wants the date of birth too: asked for, or wrong. */
  const [birth, setBirth] = useState<'asked' | 'wrong' | null>(null);
  useTitle(t('signin.title'));
  /** To where somebody wanted to go before signing in, else to where their work begins. */
  const onward = useCallback(() => {
    const user = hub.user.get();
    const path = wanted.take();
    if (user && path) router.history.replace(path);
    else void navigate({ to: user ? homeOf(user) : '/', replace: true });
  }, [navigate, router]);
  useEffect(() => {
    const taken = takeLink();
    if (taken !== null) {
      link = taken;
      exchange = hub.exchange(taken);
    }
    (exchange ?? Promise.resolve()).then(onward, (problem: unknown) => setError(asApiError(problem)));
  }, [onward]);
  const born = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const date = String(new FormData(event.currentTarget).get('birth') ?? '');
    if (link === null) return;
    setBusy(true);
    hub.exchange(link, date).then(onward, (problem: unknown) => setError(asApiError(problem))).finally(() => setBusy(false));
  };
  const reset = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget);
    const next = String(given.get('password') ?? '');
    if (link === null) return;
    setBusy(true);
    setWeak(null);
    setBirth((b) => b && 'asked');
    hub.resetPassword(link, next, String(given.get('birth') ?? '')).then(() => setDone(true), (problem: unknown) => {
      const code = asApiError(problem).code;
      if (code === 'link.birth_date') setBirth('asked');
      else if (code === 'link.birth_date_wrong') setBirth('wrong');
      else if (code === 'identity.password_weak' || code === 'identity.password_length') setWeak(messageFor(problem));
      else setError(asApiError(problem));
    }).finally(() => setBusy(false));
  };
  const asked = error?.code === 'link.birth_date' || error?.code === 'link.birth_date_wrong';
  const [title, text] = TEXTS[error?.code ?? ''] ?? ['enter.expired', 'enter.text'];
  return (
    <div className="door">
      <header className="door-top"><Brand /><LanguagePicker /></header>
      <main className="door-card card">
        {asked ? (
          <form className="signin-form" onSubmit={born} data-testid="enter-birth">
            <h1>{t('enter.birth_title')}</h1>
            {error.code === 'link.birth_date_wrong' ? <Notice tone="danger" testId="enter-birth-wrong">{t('enter.birth_wrong')}</Notice> : null}
            <label className="field"><span className="field-label">{t('enter.birth')}</span>
              <input className="field-input" name="birth" type="date" autoComplete="bday" required ref={takeFocus} data-testid="birth-date" /></label>
            <Button type="submit" variant="primary" size="l" busy={busy} data-testid="birth-submit">{t('enter.birth_submit')}</Button>
          </form>
        ) : done ? (
          <div className="empty" role="status" data-testid="reset-done">
            <span className="empty-icon"><Icon name="check" size={26} /></span>
            <h1>{t('reset.done')}</h1>
            <p>{t('reset.done_text')}</p>
            <a className="btn" data-variant="primary" href="/">{t('enter.sign_in')}</a>
          </div>
        ) : error?.code === 'link.reset' ? (
          <form className="signin-form" onSubmit={reset} data-testid="reset">
            <h1>{t('reset.title')}</h1>
            {weak ? <Notice tone="danger" testId="reset-error">{t(weak)}</Notice> : null}
            <label className="field"><span className="field-label">{t('password.new')}</span>
              <input className="field-input" name="password" type="password" autoComplete="new-password" required minLength={12} maxLength={128} ref={takeFocus} aria-describedby="reset-hint" data-testid="reset-password" /></label>
            <p className="muted small" id="reset-hint">{t('password.hint')}</p>
            {birth === 'wrong' ? <Notice tone="danger" testId="enter-birth-wrong">{t('enter.birth_wrong')}</Notice> : null}
            {birth ? (
              <label className="field"><span className="field-label">{t('enter.birth')}</span>
                <input className="field-input" name="birth" type="date" autoComplete="bday" required ref={takeFocus} data-testid="birth-date" /></label>
            ) : null}
            <Button type="submit" variant="primary" size="l" busy={busy} data-testid="reset-submit">{t('security.save')}</Button>
          </form>
        ) : error ? (
          <div className="empty" role="alert" data-testid="enter-error" data-code={error.code}>
            <span className="empty-icon" data-tone="warn"><Icon name="link" size={26} /></span>
            <h1>{t(title)}</h1>
            <p>{t(text)}</p>
            <a className="btn" data-variant="primary" href="/">{t('enter.sign_in')}</a>
          </div>
        ) : <div className="opening" role="status"><Spinner />{t('enter.opening')}</div>}
      </main>
    </div>
  );
}
