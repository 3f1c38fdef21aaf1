// What somebody proves themselves with, in one place: after the password, and when an act asks "is it you?".
import { useState, type FormEvent, type ReactNode } from 'react';
import type { MessageKey } from '../../core/i18n/i18n';
import { passkeysHere, wasCancelled } from '../../core/webauthn/passkeys';
import { Button, Notice } from '../../ui/parts';
import { takeFocus, useT } from '../../ui/store';
import { messageFor } from './messages';

export type Given = { passkey: true } | { totp: string } | { recovery: string } | { password: string };

export function Proofs({ name, methods, prove, onDone, onProblem, texts, focus = false, children }: {
  /** Begins the test ids. */
  name: 'second' | 'stepup';
  methods: readonly string[];
  prove: (given: Given) => Promise<void>;
  onDone: () => void;
  /** True when the problem is dealt with elsewhere. */
  onProblem?: (error: unknown) => boolean;
  texts: { passkey: MessageKey; submit: MessageKey };
  focus?: boolean;
  children: ReactNode;
}) {
  const t = useT();
  const passkey = methods.includes('passkey') && passkeysHere();
  const totp = methods.includes('totp');
  const canRecover = methods.includes('recovery');
  const [recovery, setRecovery] = useState(canRecover && !totp && !passkey);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<MessageKey | null>(null);
  const run = async (given: Given) => {
    setBusy(true);
    setProblem(null);
    try {
      await prove(given);
      onDone();
    } catch (error) {
      if (!wasCancelled(error) && !onProblem?.(error)) setProblem(messageFor(error));
    } finally {
      setBusy(false);
    }
  };
  const submit = (kind: 'totp' | 'recovery' | 'password') => (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const value = String(new FormData(event.currentTarget).get('proof') ?? '');
    void run(kind === 'totp' ? { totp: value } : kind === 'recovery' ? { recovery: value } : { password: value });
  };
  const code = totp || recovery;
  const secret = methods.includes('password');
  const ref = focus ? { ref: takeFocus } : {};
  return (
    <>
      {problem ? <Notice tone="danger" testId={name === 'second' ? 'signin-error' : 'stepup-error'}>{t(problem)}</Notice> : null}
      {passkey ? <Button variant="primary" size="l" icon="key" busy={busy} onClick={() => void run({ passkey: true })} data-testid={`${name}-passkey`}>{t(texts.passkey)}</Button> : null}
      {passkey && (code || secret) ? <p className="signin-or"><span>{t('signin.or')}</span></p> : null}
      {code ? (
        <form className="signin-form" onSubmit={submit(recovery ? 'recovery' : 'totp')} key={String(recovery)}>
          <label className="field"><span className="field-label">{t(recovery ? 'second.recovery' : 'second.code')}</span>
            {recovery
              ? <input className="field-input code" name="proof" autoComplete="off" autoCapitalize="none" spellCheck={false} required maxLength={40} {...ref} aria-describedby={`${name}-hint`} data-testid={`${name}-recovery`} />
              : <input className="field-input code" name="proof" inputMode="numeric" autoComplete="one-time-code" pattern="[0-9 ]*" required maxLength={9} {...ref} aria-describedby={`${name}-hint`} data-testid={`${name}-code`} />}
          </label>
          <p className="muted small" id={`${name}-hint`}>{t(recovery ? 'second.recovery_hint' : 'second.code_hint')}</p>
          <Button type="submit" variant={passkey ? 'secondary' : 'primary'} size="l" busy={busy} data-testid={name === 'second' ? 'second-submit' : 'stepup-code-submit'}>{t(texts.submit)}</Button>
        </form>
      ) : null}
      {secret ? (
        <form className="signin-form" onSubmit={submit('password')}>
          <label className="field"><span className="field-label">{t('signin.password')}</span>
            <input className="field-input" name="proof" type="password" autoComplete="current-password" required maxLength={512} data-testid={`${name}-password`} /></label>
          <Button type="submit" variant={passkey || code ? 'secondary' : 'primary'} busy={busy} data-testid={`${name}-password-submit`}>{t(texts.submit)}</Button>
        </form>
      ) : null}
      {canRecover && (totp || passkey)
        ? <Button variant="ghost" size="s" onClick={() => { setProblem(null); setRecovery(!recovery); }} data-testid={`${name}-other`}>{t(recovery ? 'second.use_app' : 'second.use_recovery')}</Button> : null}
      {children}
    </>
  );
}
