// The applications of the clinic, for administrators: registered, switched off, given a new secret, removed.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { oauth } from '../../core/api/endpoints';
import type { OAuthClient } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { CopyButton } from '../../ui/CopyButton';
import { Icon } from '../../ui/Icon';
import { Button, EmptyState, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useT } from '../../ui/store';
import { problemText } from '../words';
import { hub, queries } from '../hub';
import { Sheet } from '../ui/Sheet';
import { Toggle } from '../ui/Toggle';
import { kindOf, updateOf, type Kind } from './form';
import { Providers } from './Providers';
import { Register } from './Register';
import { AdminPages } from '../admin/AdminPages';
import './clients.css';

const KIND: Record<Kind, MessageKey> = { public: 'clients.public', secret: 'clients.secret', key: 'clients.key', backend: 'clients.backend' };
const reload = () => queries.invalidateQueries({ queryKey: ['oauth-clients'] });

export function Clients() {
  const t = useT();
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState<OAuthClient | null>(null);
  const all = useQuery({ queryKey: ['oauth-clients'], queryFn: () => oauth.clients(hub.api) });
  return (
    <AdminPages lead={t('clients.lead')} action={<Button variant="primary" icon="link" onClick={() => setAdding(true)} data-testid="clients-add">{t('clients.add')}</Button>}>
      {made ? <Made client={made} onClose={() => setMade(null)} /> : null}
      {all.isError ? <ErrorState error={all.error} onRetry={() => void all.refetch()} />
        : all.data === undefined ? <Skeleton lines={4} />
        : all.data.clients.length === 0 ? <section className="card"><EmptyState icon="link" title={t('clients.none')}>{t('clients.none_text')}</EmptyState></section>
        : <ul className="client-list">{all.data.clients.map((c) => <Row key={c.client_id} client={c} onMade={setMade} />)}</ul>}
      <Providers />
      <Sheet open={adding} title={t('clients.add')} onClose={() => setAdding(false)} testId="clients-register">
        <Register onCancel={() => setAdding(false)} onDone={(client) => { setAdding(false); setMade(client); void reload(); }} />
      </Sheet>
    </AdminPages>
  );
}

/** What the application's makers need; the secret is here once. */
function Made({ client, onClose }: { client: OAuthClient; onClose: () => void }) {
  const t = useT();
  return (
    <Notice tone="good" title={t('clients.made', { name: client.client_name })} testId="clients-made"
      action={<Button size="s" variant="ghost" onClick={onClose}>{t('clients.noted')}</Button>}>
      <dl className="client-facts">
        <div><dt>{t('clients.id')}</dt><dd><code>{client.client_id}</code><CopyButton text={client.client_id} label={t('clients.copy_id')} testId="clients-copy-id" /></dd></div>
        {client.client_secret ? <div><dt>{t('clients.the_secret')}</dt><dd><code>{client.client_secret}</code><CopyButton text={client.client_secret} label={t('clients.copy_secret')} testId="clients-copy-secret" /></dd></div> : null}
      </dl>
      {client.client_secret ? <p>{t('clients.secret_once')}</p> : null}
    </Notice>
  );
}

function Row({ client, onMade }: { client: OAuthClient; onMade: (client: OAuthClient) => void }) {
  const t = useT();
  const [asking, setAsking] = useState(false);
  const kind = kindOf(client);
  const change = useMutation({ mutationFn: (active: boolean) => oauth.update(hub.api, client.client_id, updateOf(client, active)), onSuccess: reload });
  const renew = useMutation({ mutationFn: () => oauth.newSecret(hub.api, client.client_id), onSuccess: (c) => { onMade(c); void reload(); } });
  const remove = useMutation({ mutationFn: () => oauth.remove(hub.api, client.client_id), onSuccess: reload });
  const problem = change.error ?? renew.error ?? remove.error;
  return (
    <li className="card client" data-testid="client" data-off={!client.active || undefined}>
      <div className="client-top">
        <span className="client-icon" aria-hidden="true"><Icon name={kind === 'backend' ? 'settings' : 'link'} size={20} /></span>
        <div className="client-name"><h2>{client.client_name}</h2><p className="muted small">{t(KIND[kind])}</p></div>
        <Toggle on={client.active} onChange={(on) => change.mutate(on)}>{t(client.active ? 'clients.on' : 'clients.off')}</Toggle>
      </div>
      <dl className="client-facts">
        <div><dt>{t('clients.id')}</dt><dd><code>{client.client_id}</code><CopyButton text={client.client_id} label={t('clients.copy_id')} testId="client-copy" /></dd></div>
        {client.redirect_uris ? <div><dt>{t('clients.redirects')}</dt><dd>{client.redirect_uris.map((uri) => <code key={uri}>{uri}</code>)}</dd></div> : null}
        <div><dt>{t('clients.scopes')}</dt><dd>{client.scope.split(' ').map((s) => <code key={s}>{s}</code>)}</dd></div>
      </dl>
      {problem ? <Notice tone="danger">{problemText(t, problem)}</Notice> : null}
      <div className="client-acts">
        {kind === 'secret' ? <Button size="s" icon="retry" busy={renew.isPending} onClick={() => renew.mutate()} data-testid="client-renew">{t('clients.renew')}</Button> : null}
        <Button size="s" variant="ghost" icon="close" onClick={() => setAsking(true)} data-testid="client-remove">{t('clients.remove')}</Button>
      </div>
      <Sheet open={asking} alert title={t('clients.remove_title', { name: client.client_name })} onClose={() => setAsking(false)} testId="client-remove-dialog">
        <p>{t('clients.remove_text')}</p>
        <div className="dialog-acts">
          <Button onClick={() => setAsking(false)}>{t('common.cancel')}</Button>
          <Button variant="danger" busy={remove.isPending} onClick={() => remove.mutate()} data-testid="client-remove-yes">{t('clients.remove')}</Button>
        </div>
      </Sheet>
    </li>
  );
}
