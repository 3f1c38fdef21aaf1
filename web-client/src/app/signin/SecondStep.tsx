// After the password: a code of the authenticator app, a passkey, or a recovery code.
import { useState, type FormEvent } from 'react';
import { asApiError } from '../../core/api/problem';
import type { Ticket } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { passkeysHere, wasCancelled } from '../../core/webauthn/passkeys';
import { Button, Notice } from '../../ui/parts';
import { takeFocus, useT } from '../../ui/store';
import { hub } from '../hub';
import { messageFor } from './messages';

export function SecondStep({ ticket, onDone, onBack }: { ticket: Ticket; onDone: () => void; onBack: (why: MessageKey | null) => void }) {
  const t = useT();
  const passkey = ticket.methods.includes('passkey') && passkeysHere();
  const totp = ticket.methods.includes('totp');
  const [recovery, setRecovery] = useState(!totp && !passkey);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<MessageKey | null>(null);
  const run = async (act: () => Promise<void>) => {
    setBusy(true);
    setProblem(null);
    try {
      await act();
      onDone();
    } catch (error) {
      if (asApiError(error).code === 'identity.ticket_ended') onBack('second.ended');
      else if (!wasCancelled(error)) setProblem(messageFor(error));
    } finally {
      setBusy(false);
    }
  };
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const code = String(new FormData(event.currentTarget).get('code') ?? '');
    void run(() => hub.second(ticket.ticket, recovery ? { recovery: code } : { totp: code }));
  };
  return (
    <div className="signin" data-testid="second-step">
      <h2>{t('second.title')}</h2>
      {problem ? <Notice tone="danger" testId="signin-error">{t(problem)}</Notice> : null}
      {passkey ? <Button variant="primary" size="l" icon="key" busy={busy} onClick={() => void run(() => hub.secondPasskey(ticket.ticket))} data-testid="second-passkey">{t('second.passkey')}</Button> : null}
      {passkey && (totp || recovery) ? <p className="signin-or"><span>{t('signin.or')}</span></p> : null}
      {totp || recovery ? (
        <form className="signin-form" onSubmit={submit} key={String(recovery)}>
          <label className="field"><span className="field-label">{t(recovery ? 'second.recovery' : 'second.code')}</span>
            {recovery
              ? <input className="field-input code" name="code" autoComplete="off" autoCapitalize="none" spellCheck={false} required maxLength={40} ref={takeFocus} aria-describedby="second-hint" data-testid="second-recovery" />
              : <input className="field-input code" name="code" inputMode="numeric" autoComplete="one-time-code" pattern="[0-9 ]*" required maxLength={9} ref={takeFocus} aria-describedby="second-hint" data-testid="second-code" />}
          </label>
          <p className="muted small" id="second-hint">{t(recovery ? 'second.recovery_hint' : 'second.code_hint')}</p>
          <Button type="submit" variant={passkey ? 'secondary' : 'primary'} size="l" busy={busy} data-testid="second-submit">{t('second.submit')}</Button>
        </form>
      ) : null}
      <div className="signin-more">
        {ticket.methods.includes('recovery') && (totp || passkey)
          ? <Button variant="ghost" size="s" onClick={() => { setProblem(null); setRecovery(!recovery); }} data-testid="second-other">{t(recovery ? 'second.use_app' : 'second.use_recovery')}</Button> : null}
        <Button variant="ghost" size="s" onClick={() => onBack(null)}>{t('common.back')}</Button>
      </div>
    </div>
  );
}
