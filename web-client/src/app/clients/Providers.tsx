// The outside providers through which people sign in here: described, switched off, removed.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { sso } from '../../core/api/endpoints';
import type { SsoProvider, SsoSettings } from '../../core/api/types';
import { CopyButton } from '../../ui/CopyButton';
import { Icon } from '../../ui/Icon';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { problemText } from '../words';
import { hub, queries } from '../hub';
import { Sheet } from '../ui/Sheet';
import { Toggle } from '../ui/Toggle';

const reload = () => queries.invalidateQueries({ queryKey: ['sso-providers'] });

function settingsOf({ name, issuer, client_id, domains, create, two_factors, two_factor_acr = [], two_factor_amr = [] }: SsoProvider): SsoSettings {
  return { name, issuer, client_id, domains, two_factors, two_factor_acr, two_factor_amr, ...(create ? { create } : {}) };
}

export function Providers() {
  const t = useT();
  const [adding, setAdding] = useState(false);
  const all = useQuery({ queryKey: ['sso-providers'], queryFn: () => sso.providers(hub.api) });
  return (
    <section className="providers" aria-labelledby="providers-title">
      <header className="screen-top">
        <div><h2 id="providers-title">{t('sso.title')}</h2><p className="muted">{t('sso.lead')}</p></div>
        <Button icon="door" onClick={() => setAdding(true)} data-testid="sso-add">{t('sso.add')}</Button>
      </header>
      <ul className="client-list">{(all.data?.providers ?? []).map((p) => <Row key={p.id} provider={p} />)}</ul>
      <Sheet open={adding} title={t('sso.add')} onClose={() => setAdding(false)} testId="sso-register">
        <Add onDone={() => { setAdding(false); void reload(); }} onCancel={() => setAdding(false)} />
      </Sheet>
    </section>
  );
}

function Row({ provider }: { provider: SsoProvider }) {
  const t = useT();
  const change = useMutation({ mutationFn: (active: boolean) => sso.update(hub.api, provider.id, { active, settings: settingsOf(provider) }), onSuccess: reload });
  const remove = useMutation({ mutationFn: () => sso.remove(hub.api, provider.id), onSuccess: reload });
  const problem = change.error ?? remove.error;
  return (
    <li className="card client" data-testid="sso-provider" data-off={!provider.active || undefined}>
      <div className="client-top">
        <span className="client-icon" aria-hidden="true"><Icon name="door" size={20} /></span>
        <div className="client-name"><h3>{provider.name}</h3><p className="muted small">{provider.domains.join(', ')}</p></div>
        <Toggle on={provider.active} onChange={(on) => change.mutate(on)}>{t(provider.active ? 'clients.on' : 'clients.off')}</Toggle>
      </div>
      <dl className="client-facts">
        <div><dt>{t('sso.issuer')}</dt><dd><code>{provider.issuer}</code></dd></div>
        <div><dt>{t('sso.redirect')}</dt><dd><code>{provider.redirect_uri}</code><CopyButton text={provider.redirect_uri} label={t('sso.copy_redirect')} testId="sso-copy" /></dd></div>
        <div><dt>{t('sso.logout')}</dt><dd><code data-testid="sso-logout">{provider.backchannel_logout_uri}</code><CopyButton text={provider.backchannel_logout_uri} label={t('sso.copy_logout')} testId="sso-copy-logout" /></dd></div>
      </dl>
      {problem ? <Notice tone="danger">{problemText(t, problem)}</Notice> : null}
      <div className="client-acts"><Button size="s" variant="ghost" icon="close" busy={remove.isPending} onClick={() => remove.mutate()} data-testid="sso-remove">{t('clients.remove')}</Button></div>
    </li>
  );
}

function Add({ onDone, onCancel }: { onDone: () => void; onCancel: () => void }) {
  const t = useT();
  const [create, setCreate] = useState('');
  const [two, setTwo] = useState(false);
  const add = useMutation({ mutationFn: sso.add.bind(null, hub.api), onSuccess: onDone });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const text = (name: string) => String(data.get(name) ?? '').trim();
    const words = (name: string) => text(name).split(/[\s,]+/).filter(Boolean);
    add.mutate({
      active: true, ...(text('secret') ? { client_secret: text('secret') } : {}),
      settings: {
        name: text('name'), issuer: text('issuer'), client_id: text('client_id'), domains: text('domains').split(/[\s,]+/).filter(Boolean), two_factors: two,
        two_factor_acr: words('acr'), two_factor_amr: words('amr'),
        ...(create ? { create } : {}),
      },
    });
  };
  return (
    <form className="client-form" onSubmit={submit}>
      <label className="field"><span className="field-label">{t('sso.name')}</span><input className="field-input" name="name" required maxLength={60} data-testid="sso-name" /></label>
      <label className="field"><span className="field-label">{t('sso.issuer')}</span><input className="field-input" name="issuer" type="url" required data-testid="sso-issuer" /></label>
      <label className="field"><span className="field-label">{t('clients.id')}</span><input className="field-input" name="client_id" required autoComplete="off" data-testid="sso-client" /></label>
      <label className="field"><span className="field-label">{t('clients.the_secret')}</span><input className="field-input" name="secret" type="password" autoComplete="off" data-testid="sso-secret" /></label>
      <label className="field"><span className="field-label">{t('sso.domains')}</span><input className="field-input" name="domains" required placeholder="clinic.example" data-testid="sso-domains" /></label>
      <label className="field"><span className="field-label">{t('sso.create')}</span>
        <select className="field-input" value={create} onChange={(e) => setCreate(e.target.value)} data-testid="sso-create">
          <option value="">{t('sso.create_no')}</option>
          <option value="staff">{t('sso.create_staff')}</option>
          <option value="clinician">{t('sso.create_clinician')}</option>
          <option value="patient">{t('sso.create_patient')}</option>
        </select></label>
      <Toggle on={two} onChange={setTwo}>{t('sso.two')}</Toggle>
      {two ? null : (
        <>
          <label className="field"><span className="field-label">{t('sso.acr')}</span><input className="field-input" name="acr" autoComplete="off" data-testid="sso-acr" /></label>
          <label className="field"><span className="field-label">{t('sso.amr')}</span><input className="field-input" name="amr" autoComplete="off" placeholder="mfa" data-testid="sso-amr" /></label>
        </>
      )}
      {add.isError ? <Notice tone="danger" testId="sso-add-error">{problemText(t, add.error)}</Notice> : null}
      <div className="dialog-acts">
        <Button onClick={onCancel}>{t('common.cancel')}</Button>
        <Button type="submit" variant="primary" busy={add.isPending} data-testid="sso-submit">{t('sso.add')}</Button>
      </div>
    </form>
  );
}
