// The first minute of somebody who was asked in: their name, and how they will sign in.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import type { FormEvent } from 'react';
import { homeOf } from '../../core/session/hub';
import { Button, Skeleton } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';
import { hub, queries, useUser } from '../hub';
import { Failed } from '../ui/Failed';
import { account } from './api';

export function Welcome() {
  const t = useT();
  const user = useUser();
  const navigate = useNavigate();
  useTitle(t('welcome.title'));
  const own = useQuery({ queryKey: ['profile'], queryFn: () => account.profile(hub.api), staleTime: Infinity });
  const accept = useMutation({
    mutationFn: (how: { name: string; password?: string }) => account.accept(hub.api, how),
    onSuccess: (now, how) => {
      queries.setQueryData(['profile'], now);
      if (how.password === undefined) location.assign('/app/account/security');
      else if (user) void navigate({ to: homeOf(user) });
    },
  });
  if (!own.data) return <Skeleton lines={5} />;
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    accept.mutate({ name: String(data.get('name')), password: String(data.get('password')) });
  };
  return (
    <div className="door-card card" data-testid="welcome">
      <h1>{t('welcome.title')}</h1>
      <p className="muted">{t('welcome.lead')}</p>
      <form className="signin-form" onSubmit={submit}>
        <Failed error={accept.error} />
        <input type="hidden" autoComplete="username" value={own.data.email} readOnly />
        <label className="field"><span className="field-label">{t('welcome.name')}</span><input className="field-input" name="name" required defaultValue={own.data.name} autoComplete="name" data-testid="welcome-name" /></label>
        <label className="field"><span className="field-label">{t('welcome.password')}</span>
          <input className="field-input" name="password" type="password" required minLength={12} maxLength={128} autoComplete="new-password" aria-describedby="password-text" data-testid="welcome-password" />
          <span id="password-text" className="muted small">{t('welcome.password_text')}</span></label>
        <Button type="submit" variant="primary" size="l" busy={accept.isPending} data-testid="welcome-submit">{t('welcome.submit')}</Button>
        <Button variant="ghost" icon="shield" disabled={accept.isPending} onClick={() => accept.mutate({ name: own.data.name })} data-testid="welcome-passkey">{t('welcome.passkey')}</Button>
      </form>
    </div>
  );
}
