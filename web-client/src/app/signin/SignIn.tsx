// The front door for people with an account.
import { useNavigate, useRouter } from '@tanstack/react-router';
import { homeOf } from '../../core/session/hub';
import { wanted } from '../../core/session/session';
import { LanguagePicker } from '../../ui/LanguagePicker';
import { Brand, Notice } from '../../ui/parts';
import { useStore, useT, useTitle } from '../../ui/store';
import { hub } from '../hub';
import { SignInForm } from './SignInForm';
import { Sso } from './Sso';

export function SignIn() {
  const t = useT();
  const navigate = useNavigate();
  const router = useRouter();
  const left = useStore(hub.left);
  useTitle(t('signin.title'));
  const done = () => {
    const user = hub.user.get();
    const path = wanted.take();
    if (user && path) router.history.push(path);
    else if (user) void navigate({ to: homeOf(user) });
  };
  return (
    <div className="door">
      <header className="door-top"><Brand /><LanguagePicker /></header>
      <main className="door-card card">
        <h1>{t('signin.title')}</h1>
        {left === 'idle' ? <Notice testId="signin-left">{t('idle.ended')}</Notice> : null}
        <SignInForm onDone={done} links />
        <Sso />
      </main>
      <p className="door-foot muted small">{t('signin.patient_hint')}</p>
    </div>
  );
}
