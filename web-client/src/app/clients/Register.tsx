// A new application: its kind decides what else is asked.
import { useMutation } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { oauth } from '../../core/api/endpoints';
import type { OAuthClient } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { problemText } from '../words';
import { hub } from '../hub';
import { Toggle } from '../ui/Toggle';
import { DEFAULT_SCOPES, metadataOf, type Fields, type Kind } from './form';

const KINDS: ReadonlyArray<[Kind, MessageKey, MessageKey]> = [
  ['public', 'clients.public', 'clients.public_text'], ['secret', 'clients.secret', 'clients.secret_text'],
  ['key', 'clients.key', 'clients.key_text'], ['backend', 'clients.backend', 'clients.backend_text'],
];

export function Register({ onCancel, onDone }: { onCancel: () => void; onDone: (client: OAuthClient) => void }) {
  const t = useT();
  const [f, setF] = useState<Fields>({ kind: 'public', name: '', redirects: '', launch: '', logout: '', bound: false, scope: DEFAULT_SCOPES.public, keys: '' });
  const [wrongKeys, setWrongKeys] = useState(false);
  const set = (some: Partial<Fields>) => setF((before) => ({ ...before, ...some }));
  const create = useMutation({ mutationFn: oauth.create.bind(null, hub.api), onSuccess: onDone });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const metadata = metadataOf(f);
    setWrongKeys(metadata === null);
    if (metadata) create.mutate(metadata);
  };
  const keyed = f.kind === 'key' || f.kind === 'backend';
  return (
    <form className="client-form" onSubmit={submit}>
      <label className="field"><span className="field-label">{t('clients.name')}</span>
        <input className="field-input" value={f.name} required maxLength={100} onChange={(e) => set({ name: e.target.value })} data-testid="client-name" /></label>
      <fieldset className="client-kinds">
        <legend className="field-label">{t('clients.kind')}</legend>
        {KINDS.map(([kind, label, text]) => (
          <label key={kind} className="client-kind" data-on={f.kind === kind || undefined}>
            <input type="radio" name="kind" checked={f.kind === kind} onChange={() => set({ kind, scope: DEFAULT_SCOPES[kind] })} data-testid={`client-kind-${kind}`} />
            <strong>{t(label)}</strong>
            <span className="muted small">{t(text)}</span>
          </label>
        ))}
      </fieldset>
      {f.kind === 'backend' ? null : (
        <>
          <label className="field"><span className="field-label">{t('clients.redirects')}</span>
            <textarea className="field-input client-text" value={f.redirects} required rows={2} spellCheck={false} placeholder="https://" onChange={(e) => set({ redirects: e.target.value })} data-testid="client-redirects" /></label>
          <label className="field"><span className="field-label">{t('clients.launch')}</span>
            <input className="field-input" value={f.launch} type="url" onChange={(e) => set({ launch: e.target.value })} data-testid="client-launch" /></label>
          <label className="field"><span className="field-label">{t('clients.logout')}</span>
            <input className="field-input" value={f.logout} type="url" onChange={(e) => set({ logout: e.target.value })} data-testid="client-logout" /></label>
        </>
      )}
      {keyed ? (
        <label className="field"><span className="field-label">{t('clients.keys')}</span>
          <textarea className="field-input client-text" value={f.keys} required rows={3} spellCheck={false} aria-invalid={wrongKeys || undefined} onChange={(e) => set({ keys: e.target.value })} data-testid="client-keys" /></label>
      ) : null}
      <label className="field"><span className="field-label">{t('clients.scopes_allowed')}</span>
        <textarea className="field-input client-text" value={f.scope} required rows={3} spellCheck={false} onChange={(e) => set({ scope: e.target.value })} data-testid="client-scopes" /></label>
      <Toggle on={f.bound} onChange={(bound) => set({ bound })}>{t('clients.bound')}</Toggle>
      {wrongKeys ? <Notice tone="danger">{t('clients.keys_wrong')}</Notice> : null}
      {create.isError ? <Notice tone="danger" testId="client-error">{problemText(t, create.error)}</Notice> : null}
      <div className="dialog-acts">
        <Button onClick={onCancel}>{t('common.cancel')}</Button>
        <Button type="submit" variant="primary" busy={create.isPending} data-testid="client-submit">{t('clients.add')}</Button>
      </div>
    </form>
  );
}
