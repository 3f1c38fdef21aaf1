// "Is it you?": asked when an act wants a fresh proof. The request that asked waits behind it and is sent once more.
import { useQuery } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { account } from '../../core/api/endpoints';
import type { MessageKey } from '../../core/i18n/i18n';
import { passkeysHere, askPasskey, wasCancelled } from '../../core/webauthn/passkeys';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useStore, useT } from '../../ui/store';
import { hub } from '../hub';
import { messageFor } from '../signin/messages';
import { Sheet } from '../ui/Sheet';

export function StepUp() {
  const t = useT();
  const answer = useStore(hub.stepUp);
  return (
    <Sheet open={answer !== null} title={t('stepup.title')} onClose={() => answer?.(false)} testId="stepup">
      <p className="muted">{t('stepup.text')}</p>
      {answer ? <Proofs onProved={() => answer(true)} onCancel={() => answer(false)} /> : null}
    </Sheet>
  );
}

function Proofs({ onProved, onCancel }: { onProved: () => void; onCancel: () => void }) {
  const t = useT();
  const query = useQuery({ queryKey: ['security', 'stepup'], queryFn: () => account.security(hub.plainApi), staleTime: 0, gcTime: 0 });
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<MessageKey | null>(null);
  const run = async (act: () => Promise<void>) => {
    setBusy(true);
    setProblem(null);
    try {
      await act();
      onProved();
    } catch (error) {
      if (!wasCancelled(error)) setProblem(messageFor(error));
    } finally {
      setBusy(false);
    }
  };
  if (query.isError) return <ErrorState error={query.error} onRetry={() => void query.refetch()} />;
  if (!query.data) return <Skeleton lines={2} />;
  const methods = query.data.step_up.filter((m) => m !== 'passkey' || passkeysHere());
  const submit = (kind: 'password' | 'totp') => (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const value = String(new FormData(event.currentTarget).get('proof') ?? '');
    void run(() => (kind === 'password' ? account.provePassword(hub.plainApi, value) : account.proveCode(hub.plainApi, value)));
  };
  const passkey = () => void run(async () => account.provePasskey(hub.plainApi, await askPasskey(await account.provePasskeyStart(hub.plainApi))));
  return (
    <div className="signin">
      {problem ? <Notice tone="danger" testId="stepup-error">{t(problem)}</Notice> : null}
      {methods.length === 0 ? <Notice tone="warn" testId="stepup-none">{t('stepup.none')}</Notice> : null}
      {methods.includes('passkey') ? <Button variant="primary" size="l" icon="key" busy={busy} onClick={passkey} data-testid="stepup-passkey">{t('stepup.passkey')}</Button> : null}
      {methods.includes('totp') ? (
        <form className="signin-row" onSubmit={submit('totp')}>
          <label className="field"><span className="field-label">{t('second.code')}</span>
            <input className="field-input code" name="proof" inputMode="numeric" autoComplete="one-time-code" required maxLength={9} data-testid="stepup-code" /></label>
          <Button type="submit" busy={busy} data-testid="stepup-code-submit">{t('stepup.confirm')}</Button>
        </form>
      ) : null}
      {methods.includes('password') ? (
        <form className="signin-row" onSubmit={submit('password')}>
          <label className="field"><span className="field-label">{t('signin.password')}</span>
            <input className="field-input" name="proof" type="password" autoComplete="current-password" required maxLength={512} data-testid="stepup-password" /></label>
          <Button type="submit" busy={busy} data-testid="stepup-password-submit">{t('stepup.confirm')}</Button>
        </form>
      ) : null}
      <div className="dialog-acts">
        <Button variant="ghost" onClick={onCancel}>{t('common.cancel')}</Button>
        {methods.length === 0 ? <Button variant="primary" onClick={() => void hub.signOut()}>{t('stepup.sign_in')}</Button> : null}
      </div>
    </div>
  );
}
