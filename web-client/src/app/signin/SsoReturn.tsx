// Back from an outside provider: its answer is taken out of the address at once, and becomes a session.
import { useNavigate, useRouter } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { asApiError, ApiError } from '../../core/api/problem';
import { homeOf } from '../../core/session/hub';
import { wanted } from '../../core/session/session';
import { tab } from '../../core/store/keep';
import { Icon } from '../../ui/Icon';
import { Brand, Spinner } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';
import { hub } from '../hub';
import { problemText } from '../words';
import { BROWSER } from './Sso';

/** Outside the component: an effect may run twice, an answer is good once. */
let finishing: Promise<void> | null = null;

function takeAnswer(): Promise<void> | null {
  const query = new URLSearchParams(location.search);
  const [state, code, refused, iss] = [query.get('state'), query.get('code'), query.get('error'), query.get('iss')];
  if (state === null && refused === null) return null;
  history.replaceState(null, '', location.pathname);
  const browser = tab.read<string>(BROWSER) ?? '';
  tab.remove(BROWSER);
  if (state === null || code === null) return Promise.reject(new ApiError(403, 'sso.declined', ''));
  return hub.finishSso({ state, code, browser, ...(iss === null ? {} : { iss }) });
}

export function SsoReturn() {
  const t = useT();
  const navigate = useNavigate();
  const router = useRouter();
  const [error, setError] = useState<ApiError | null>(null);
  useTitle(t('signin.title'));
  useEffect(() => {
    finishing = takeAnswer() ?? finishing;
    (finishing ?? Promise.resolve()).then(() => {
      const user = hub.user.get();
      const path = wanted.take();
      if (user && path) router.history.replace(path);
      else void navigate({ to: user ? homeOf(user) : '/', replace: true });
    }, (problem: unknown) => setError(asApiError(problem)));
  }, [navigate, router]);
  return (
    <div className="door">
      <header className="door-top"><Brand /></header>
      <main className="door-card card">
        {error ? (
          <div className="empty" role="alert" data-testid="sso-failed" data-code={error.code}>
            <span className="empty-icon" data-tone="warn"><Icon name="alert" size={26} /></span>
            <h1>{t('sso.failed')}</h1>
            <p>{error.code === 'sso.declined' ? t('sso.failed_text') : problemText(t, error)}</p>
            <a className="btn" data-variant="primary" href="/">{t('enter.sign_in')}</a>
          </div>
        ) : <div className="opening" role="status"><Spinner />{t('enter.opening')}</div>}
      </main>
    </div>
  );
}
