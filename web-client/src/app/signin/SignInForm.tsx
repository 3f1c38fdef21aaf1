// E-mail and password, used on the sign-in page and when a session ends in the middle of work.
import { useState, type FormEvent } from 'react';
import { asApiError } from '../../core/api/problem';
import type { MessageKey } from '../../core/i18n/i18n';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub } from '../hub';

function messageFor(error: unknown): MessageKey {
  const { status } = asApiError(error);
  if (status === 0) return 'error.network';
  if (status === 429) return 'signin.too_many';
  return status >= 400 && status < 500 ? 'signin.wrong' : 'error.server';
}

export function SignInForm({ onDone }: { onDone: () => void }) {
  const t = useT();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<MessageKey | null>(null);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    setBusy(true);
    setProblem(null);
    try {
      await hub.signIn(String(data.get('email') ?? '').trim(), String(data.get('password') ?? ''));
      onDone();
    } catch (error) {
      setProblem(messageFor(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form className="signin-form" onSubmit={(e) => void submit(e)}>
      {problem ? <Notice tone="danger" testId="signin-error">{t(problem)}</Notice> : null}
      <label className="field"><span className="field-label">{t('signin.email')}</span>
        <input className="field-input" name="email" type="email" autoComplete="username" required aria-invalid={problem === 'signin.wrong' || undefined} data-testid="signin-email" /></label>
      <label className="field"><span className="field-label">{t('signin.password')}</span>
        <input className="field-input" name="password" type="password" autoComplete="current-password" required aria-invalid={problem === 'signin.wrong' || undefined} data-testid="signin-password" /></label>
      <Button type="submit" variant="primary" size="l" busy={busy} data-testid="signin-submit">{t('signin.submit')}</Button>
    </form>
  );
}
