// `prompt=none`: an application asks without a screen. The answer comes at once, for whoever is signed in on this tab or for nobody.
import { useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { oauth } from '../../core/api/endpoints';
import { ApiClient } from '../../core/api/client';
import { asApiError, type ApiError } from '../../core/api/problem';
import { Brand, EmptyState, ErrorState } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub } from '../hub';

/** A request is answered once, and an effect may run twice. */
const asked = new Map<string, Promise<{ redirect: string }>>();

function answer(request: string): Promise<{ redirect: string }> {
  const known = asked.get(request);
  if (known) return known;
  // A client of its own: a session that is over is an answer here, and nobody is asked to sign in.
  const made = oauth.silent(new ApiClient({ token: hub.token }), request);
  asked.set(request, made);
  return made;
}

export function Silent() {
  const t = useT();
  const { request } = useSearch({ from: '/app/authorize/silent' });
  const [problem, setProblem] = useState<ApiError | null>(null);
  useEffect(() => {
    answer(request).then(({ redirect }) => location.replace(redirect), (error: unknown) => setProblem(asApiError(error)));
  }, [request]);
  // Nothing is shown but what keeps the answer from coming.
  if (problem === null) return null;
  return (
    <div className="door">
      <header className="door-top"><Brand /></header>
      <main className="door-card card">
        {problem.status === 404 ? <EmptyState icon="clock" title={t('consent.gone')}>{t('consent.gone_text')}</EmptyState> : <ErrorState error={problem} onRetry={() => location.reload()} />}
      </main>
    </div>
  );
}
