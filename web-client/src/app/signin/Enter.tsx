// A sign-in link: exchanged at once, and gone from the address bar before anything else happens.
import { useNavigate, useRouter } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { asApiError, type ApiError } from '../../core/api/problem';
import { homeOf } from '../../core/session/hub';
import { takeLink, wanted } from '../../core/session/session';
import { Icon } from '../../ui/Icon';
import { Brand, Spinner } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';
import { hub } from '../hub';

/** Outside the component: an effect may run twice, a link is good once. */
let exchange: Promise<void> | null = null;

export function Enter() {
  const t = useT();
  const navigate = useNavigate();
  const router = useRouter();
  const [error, setError] = useState<ApiError | null>(null);
  useTitle(t('signin.title'));
  useEffect(() => {
    const link = takeLink();
    if (link !== null) exchange = hub.exchange(link);
    (exchange ?? Promise.resolve()).then(() => {
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
          <div className="empty" role="alert" data-testid="enter-error" data-code={error.code}>
            <span className="empty-icon" data-tone="warn"><Icon name="link" size={26} /></span>
            <h1>{t(error.status === 0 ? 'error.title' : error.status === 410 ? 'enter.used' : 'enter.expired')}</h1>
            <p>{t(error.status === 0 ? 'error.network' : 'enter.text')}</p>
            <a className="btn" data-variant="primary" href="/">{t('enter.sign_in')}</a>
          </div>
        ) : <div className="opening" role="status"><Spinner />{t('enter.opening')}</div>}
      </main>
    </div>
  );
}
