// Passkeys: add one, give it a name, take it away.
import { useQuery } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { account } from '../../core/api/endpoints';
import type { PasskeyInfo } from '../../core/api/types';
import { makePasskey, passkeysHere } from '../../core/webauthn/passkeys';
import { shortDate } from './dates';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { takeFocus, useLanguage, useT } from '../../ui/store';
import { hub } from '../hub';
import { Sheet } from '../ui/Sheet';
import { Part, useAct } from './Part';

export function Passkeys() {
  const t = useT();
  const { busy, problem, run } = useAct();
  const query = useQuery({ queryKey: ['security', 'passkeys'], queryFn: () => account.passkeys(hub.api) });
  const [naming, setNaming] = useState<PasskeyInfo | null>(null);
  const [removing, setRemoving] = useState<PasskeyInfo | null>(null);
  const add = () => void run(async () => {
    await account.passkeyMade(hub.api, await makePasskey(await account.addPasskey(hub.api)));
    hub.enrol.set(false);
  });
  const rename = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const name = String(new FormData(event.currentTarget).get('name') ?? '').trim();
    const { id } = naming ?? { id: '' };
    void run(() => account.namePasskey(hub.api, id, name)).then((done) => { if (done) setNaming(null); });
  };
  const remove = () => {
    const { id } = removing ?? { id: '' };
    setRemoving(null);
    void run(() => account.removePasskey(hub.api, id));
  };
  return (
    <Part icon="key" title="passkeys.title" text="passkeys.text" testId="passkeys" problem={problem}>
      {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
      {query.isPending ? <Skeleton lines={2} /> : null}
      {query.data?.passkeys.length ? (
        <ul className="sec-rows">{query.data.passkeys.map((p) => <Row key={p.id} passkey={p} onName={() => setNaming(p)} onRemove={() => setRemoving(p)} />)}</ul>
      ) : null}
      {passkeysHere()
        ? <Button variant={query.data?.passkeys.length ? 'secondary' : 'primary'} icon="key" busy={busy} onClick={add} data-testid="passkey-add">{t('passkeys.add')}</Button>
        : <Notice>{t('signin.passkey_host')}</Notice>}
      <Sheet open={naming !== null} title={t('passkeys.rename')} onClose={() => setNaming(null)} testId="passkey-name">
        <form className="signin-form" onSubmit={rename}>
          <label className="field"><span className="field-label">{t('passkeys.name')}</span>
            <input className="field-input" name="name" defaultValue={naming?.name} maxLength={80} required ref={takeFocus} data-testid="passkey-name-input" /></label>
          <div className="dialog-acts"><Button variant="ghost" onClick={() => setNaming(null)}>{t('common.cancel')}</Button><Button type="submit" variant="primary" busy={busy} data-testid="passkey-name-save">{t('security.save')}</Button></div>
        </form>
      </Sheet>
      <Sheet open={removing !== null} title={t('passkeys.remove_title')} onClose={() => setRemoving(null)} testId="passkey-remove-dialog" alert>
        <p>{t('passkeys.remove_text', { name: removing?.name ?? '' })}</p>
        <div className="dialog-acts"><Button variant="ghost" onClick={() => setRemoving(null)}>{t('common.cancel')}</Button><Button variant="danger" onClick={remove} data-testid="passkey-remove-confirm">{t('security.remove')}</Button></div>
      </Sheet>
    </Part>
  );
}

function Row({ passkey, onName, onRemove }: { passkey: PasskeyInfo; onName: () => void; onRemove: () => void }) {
  const t = useT();
  const language = useLanguage();
  const name = passkey.name || t('passkeys.unnamed');
  return (
    <li className="sec-row" data-testid="passkey" data-passkey={passkey.id}>
      <div><strong>{name}</strong><span className="muted small">
        {passkey.last_used_at ? t('passkeys.used', { date: shortDate(passkey.last_used_at, language) }) : t('passkeys.added', { date: shortDate(passkey.created_at, language) })}
        {passkey.synced ? ` · ${t('passkeys.synced')}` : ''}</span></div>
      <Button size="s" variant="ghost" onClick={onName} aria-label={t('passkeys.rename_named', { name })} data-testid="passkey-rename">{t('passkeys.rename')}</Button>
      <Button size="s" variant="ghost" onClick={onRemove} aria-label={t('passkeys.remove_named', { name })} data-testid="passkey-remove">{t('security.remove')}</Button>
    </li>
  );
}
