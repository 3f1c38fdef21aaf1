// One's own e-mail address: another one is asked for here, and holds when the link that goes there was opened.
import { useState, type FormEvent } from 'react';
import { addressSecret } from '../../core/session/session';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Sheet } from '../ui/Sheet';
import { account, type Profile } from './api';
import { Part, useAct } from './Part';
import './account.css';

export function Address({ own }: { own: Profile }) {
  const t = useT();
  const { busy, problem, run } = useAct();
  const [open, setOpen] = useState(false);
  const renew = () => queries.invalidateQueries({ queryKey: ['profile'] });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const email = String(new FormData(event.currentTarget).get('email') ?? '').trim();
    void run(() => account.changeEmail(hub.api, email, addressSecret.keep())).then((ok) => { if (ok) { setOpen(false); void renew(); } });
  };
  return (
    <Part icon="chat" title="address.title" text="address.text" testId="address">
      <p className="address-now" data-testid="address-now">{own.email}</p>
      {own.new_email ? (
        <Notice testId="address-waits">
          <p>{t('address.waits', { email: own.new_email })}</p>
          <Button size="s" busy={busy} onClick={() => void run(() => account.keepEmail(hub.api)).then(renew)} data-testid="address-keep">{t('address.keep')}</Button>
        </Notice>
      ) : null}
      <div className="sec-acts"><Button onClick={() => setOpen(true)} data-testid="address-change">{t('address.change')}</Button></div>
      <Sheet open={open} title={t('address.change')} onClose={() => setOpen(false)} testId="address-dialog">
        <form className="signin-form" onSubmit={submit}>
          {problem ? <p className="field-error" role="alert" data-testid="address-error">{t(problem)}</p> : null}
          <label className="field"><span className="field-label">{t('address.new')}</span>
            <input className="field-input" name="email" type="email" autoComplete="email" required maxLength={254} aria-describedby="address-hint" data-testid="address-new" /></label>
          <p className="muted small" id="address-hint">{t('address.hint')}</p>
          <div className="dialog-acts"><Button variant="ghost" onClick={() => setOpen(false)}>{t('common.cancel')}</Button><Button type="submit" variant="primary" busy={busy} data-testid="address-send">{t('address.send')}</Button></div>
        </form>
      </Sheet>
    </Part>
  );
}
