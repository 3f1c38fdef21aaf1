// The password: changed with the old one, or set with a fresh proof where there is none yet.
import { useState, type FormEvent } from 'react';
import { account } from '../../core/api/endpoints';
import { Button } from '../../ui/parts';
import { useT, useStore } from '../../ui/store';
import { hub } from '../hub';
import { Sheet } from '../ui/Sheet';
import { Part, useAct } from './Part';

export function Password({ set }: { set: boolean }) {
  const t = useT();
  const user = useStore(hub.user);
  const { busy, problem, run } = useAct();
  const [open, setOpen] = useState(false);
  const [done, setDone] = useState(false);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const current = set ? String(data.get('current') ?? '') : undefined;
    void run(() => account.password(hub.api, String(data.get('new') ?? ''), current)).then((ok) => { if (ok) { setOpen(false); setDone(true); } });
  };
  return (
    <Part icon="keyboard" title="password.title" text="password.text" testId="password"
      state={<span className="chip" data-tone={set ? 'info' : undefined} data-testid="password-state" data-on={set}>{t(set ? 'security.on' : 'security.off')}</span>}>
      <div className="sec-acts">
        <Button onClick={() => { setDone(false); setOpen(true); }} data-testid="password-change">{t(set ? 'password.change' : 'password.set')}</Button>
        <span role="status" className="small muted" data-testid="password-done">{done ? t('password.done') : ''}</span>
      </div>
      <Sheet open={open} title={t(set ? 'password.change' : 'password.set')} onClose={() => setOpen(false)} testId="password-dialog">
        <form className="signin-form" onSubmit={submit}>
          <input type="text" name="username" autoComplete="username" defaultValue={user?.name} readOnly hidden />
          {problem ? <p className="field-error" role="alert" data-testid="password-error">{t(problem)}</p> : null}
          {set ? (
            <label className="field"><span className="field-label">{t('password.current')}</span>
              <input className="field-input" name="current" type="password" autoComplete="current-password" required maxLength={512} data-testid="password-current" /></label>
          ) : null}
          <label className="field"><span className="field-label">{t('password.new')}</span>
            <input className="field-input" name="new" type="password" autoComplete="new-password" required minLength={12} maxLength={128} aria-describedby="password-hint" data-testid="password-new" /></label>
          <p className="muted small" id="password-hint">{t('password.hint')}</p>
          <div className="dialog-acts"><Button variant="ghost" onClick={() => setOpen(false)}>{t('common.cancel')}</Button><Button type="submit" variant="primary" busy={busy} data-testid="password-save">{t('security.save')}</Button></div>
        </form>
      </Sheet>
    </Part>
  );
}
