// An authenticator app: the secret as a picture and as text, then a code of it.
import { useState, type FormEvent } from 'react';
import { encode } from 'uqr';
import { account } from '../../core/api/endpoints';
import { CopyButton } from '../../ui/CopyButton';
import { Button } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub } from '../hub';
import { Sheet } from '../ui/Sheet';
import { Part, useAct } from './Part';

export function Totp({ on }: { on: boolean }) {
  const t = useT();
  const { busy, problem, run } = useAct();
  const confirming = useAct();
  const [made, setMade] = useState<{ secret: string; uri: string } | null>(null);
  const [removing, setRemoving] = useState(false);
  const start = () => void run(async () => setMade(await account.startTotp(hub.api)));
  const confirm = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const code = String(new FormData(event.currentTarget).get('code') ?? '');
    void confirming.run(() => account.confirmTotp(hub.api, code)).then((done) => {
      if (!done) return;
      setMade(null);
      hub.enrol.set(false);
    });
  };
  return (
    <Part icon="phone" title="totp.title" text="totp.text" testId="totp" problem={made ? null : problem}
      state={<span className="chip" data-tone={on ? 'info' : undefined} data-testid="totp-state" data-on={on}>{t(on ? 'security.on' : 'security.off')}</span>}>
      <div className="sec-acts">
        <Button busy={busy} onClick={start} data-testid="totp-start">{t(on ? 'totp.renew' : 'totp.start')}</Button>
        {on ? <Button variant="ghost" busy={busy} onClick={() => setRemoving(true)} data-testid="totp-remove">{t('security.remove')}</Button> : null}
      </div>
      <Sheet open={made !== null} title={t('totp.title')} onClose={() => setMade(null)} testId="totp-dialog">
        {made ? (
          <>
            <p>{t('totp.scan')}</p>
            <Qr text={made.uri} label={t('totp.qr')} />
            <p className="muted small">{t('totp.type')}</p>
            <div className="sec-secret"><code data-testid="totp-secret">{(made.secret.match(/.{1,4}/g) ?? []).join(' ')}</code><CopyButton text={made.secret} label={t('totp.copy')} testId="totp-copy" /></div>
            <form className="signin-form" onSubmit={confirm}>
              {confirming.problem ? <p className="field-error" role="alert" data-testid="totp-error">{t(confirming.problem)}</p> : null}
              <label className="field"><span className="field-label">{t('second.code')}</span>
                <input className="field-input code" name="code" inputMode="numeric" autoComplete="one-time-code" required maxLength={9} data-testid="totp-code" /></label>
              <div className="dialog-acts"><Button variant="ghost" onClick={() => setMade(null)}>{t('common.cancel')}</Button><Button type="submit" variant="primary" busy={confirming.busy} data-testid="totp-confirm">{t('totp.confirm')}</Button></div>
            </form>
          </>
        ) : null}
      </Sheet>
      <Sheet open={removing} title={t('totp.remove_title')} onClose={() => setRemoving(false)} testId="totp-remove-dialog" alert>
        <p>{t('totp.remove_text')}</p>
        <div className="dialog-acts"><Button variant="ghost" onClick={() => setRemoving(false)}>{t('common.cancel')}</Button>
          <Button variant="danger" onClick={() => { setRemoving(false); void run(() => account.removeTotp(hub.api)); }} data-testid="totp-remove-confirm">{t('security.remove')}</Button></div>
      </Sheet>
    </Part>
  );
}

/** Always dark on light with its quiet zone, also in the dark: cameras want it so. */
function Qr({ text, label }: { text: string; label: string }) {
  const { data, size } = encode(text, { border: 4 });
  const path = data.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : ''))).join('');
  return <svg className="sec-qr" viewBox={`0 0 ${size} ${size}`} role="img" aria-label={label} shapeRendering="crispEdges" data-testid="totp-qr"><rect width={size} height={size} fill="#fff" /><path d={path} fill="#000" /></svg>;
}
