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

/** Outside the component: an effect may run twice, a link is good once. */
let link: string | null = null;
let exchange: Promise<void> | null = null;

const TEXTS: Record<string, [title: MessageKey, text: MessageKey]> = {
  'link.used': ['enter.used', 'enter.text'],
  'link.other_browser': ['enter.other_browser', 'enter.other_browser_text'],
  network: ['error.title', 'error.network'],
};

export function Enter() {
  const t = useT();
  const navigate = useNavigate();
  const router = useRouter();
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
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
