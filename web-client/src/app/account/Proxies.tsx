// Who may act for the patient, and for whom somebody may act.
import { timeFormat } from '../../core/time/time';
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState, type FormEvent, type ReactNode } from 'react';
import { Button } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { Sheet } from '../ui/Sheet';
import { account, type NewProxy, type Proxy } from './api';

const RELATIONSHIPS = ['mother', 'father', 'guardian', 'partner', 'child', 'carer'] as const;
const SCOPES = ['appointments', 'results', 'messages'] as const;
const TONE = { asked: 'info', active: 'good', ended: 'none', over: 'none' } as const;
const renew = () => Promise.all([queries.invalidateQueries({ queryKey: ['proxies'] }), queries.invalidateQueries({ queryKey: ['acting-for'] })]);

export function Proxies() {
  const t = useT();
  const [adding, setAdding] = useState(false);
  const list = useQuery({ queryKey: ['proxies'], queryFn: () => account.proxies(hub.api) });
  const end = useMutation({ mutationFn: (id: string) => account.endProxy(hub.api, id), onSuccess: renew });
  const standing = list.data?.proxies.filter((p) => p.state !== 'ended' && p.state !== 'over');
  return (
    <section className="card panel" aria-label={t('proxy.title')}>
      <div className="panel-head">
        <div><h2>{t('proxy.title')}</h2><p className="muted">{t('proxy.text')}</p></div>
        <Button icon="people" onClick={() => setAdding(true)} data-testid="proxy-add">{t('proxy.add')}</Button>
      </div>
      <Failed error={end.error ?? list.error} />
      {standing?.length === 0 ? <p className="muted">{t('proxy.none')}</p> : null}
      <ul className="things">{(standing ?? []).map((p) => (
        <Row key={p.id} proxy={p} name={p.name}><Button busy={end.isPending && end.variables === p.id} onClick={() => end.mutate(p.id)} data-testid="proxy-end">{t('proxy.end')}</Button></Row>
      ))}</ul>
      <Sheet open={adding} title={t('proxy.add')} onClose={() => setAdding(false)} testId="proxy-sheet"><Ask onDone={() => setAdding(false)} /></Sheet>
    </section>
  );
}

/** For whom this person may act; nothing where there is nobody. */
export function ActingFor() {
  const t = useT();
  const list = useQuery({ queryKey: ['acting-for'], queryFn: () => account.actingFor(hub.api) });
  const accept = useMutation({ mutationFn: (id: string) => account.acceptProxy(hub.api, id), onSuccess: renew });
  const end = useMutation({ mutationFn: (id: string) => account.endProxy(hub.api, id), onSuccess: renew });
  if (!list.data || list.data.proxies.length === 0) return null;
  return (
    <section className="card panel" aria-label={t('proxy.mine')}>
      <h2>{t('proxy.mine')}</h2>
      <Failed error={accept.error ?? end.error} />
      <ul className="things">{list.data.proxies.map((p) => (
        <Row key={p.id} proxy={p} name={p.patient_name ?? ''}>
          {p.state === 'asked' ? <Button variant="primary" busy={accept.isPending && accept.variables === p.id} onClick={() => accept.mutate(p.id)} data-testid="proxy-accept">{t('proxy.accept')}</Button> : null}
          <Button busy={end.isPending && end.variables === p.id} onClick={() => end.mutate(p.id)}>{t(p.state === 'asked' ? 'proxy.decline' : 'proxy.end')}</Button>
        </Row>
      ))}</ul>
    </section>
  );
}

function Row({ proxy, name, children }: { proxy: Proxy; name: string; children: ReactNode }) {
  const t = useT();
  const language = useLanguage();
  const date = proxy.ends_at ? timeFormat(language, { dateStyle: 'medium' }).format(new Date(proxy.ends_at)) : null;
  const scope = proxy.scope.map((s) => t(`proxy.scope_${s as (typeof SCOPES)[number]}`)).join(', ');
  const until = date === null ? '' : ` · ${t(proxy.ends_with_childhood ? 'proxy.childhood' : 'proxy.ends', { date })}`;
  return (
    <li className="thing" data-testid="proxy" data-state={proxy.state}>
      <div><strong>{name}</strong><span className="muted small">{t(`proxy.rel_${proxy.relationship as (typeof RELATIONSHIPS)[number]}`)} · {scope}{until}</span></div>
      <div className="thing-acts"><span className="chip" data-tone={TONE[proxy.state]}>{t(`proxy.state_${proxy.state}`)}</span>{children}</div>
    </li>
  );
}

function Ask({ onDone }: { onDone: () => void }) {
  const t = useT();
  const ask = useMutation({ mutationFn: (proxy: NewProxy) => account.grant(hub.api, proxy), onSuccess: () => { onDone(); return renew(); } });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const until = String(data.get('until') ?? '');
    ask.mutate({
      name: String(data.get('name')), email: String(data.get('email')), relationship: String(data.get('relationship')),
      scope: data.getAll('scope').map(String), ...(until === '' ? {} : { until }),
    });
  };
  return (
    <form className="signin-form" onSubmit={submit}>
      <Failed error={ask.error} />
      <label className="field"><span className="field-label">{t('proxy.name')}</span><input className="field-input" name="name" required autoComplete="off" data-testid="proxy-name" /></label>
      <label className="field"><span className="field-label">{t('proxy.email')}</span><input className="field-input" name="email" type="email" required autoComplete="off" data-testid="proxy-email" /></label>
      <label className="field"><span className="field-label">{t('proxy.relationship')}</span>
        <select className="field-input" name="relationship" defaultValue="carer">{RELATIONSHIPS.map((r) => <option key={r} value={r}>{t(`proxy.rel_${r}`)}</option>)}</select></label>
      <fieldset className="choices"><legend>{t('proxy.scope')}</legend>
        {SCOPES.map((s) => <label key={s} className="choice"><input type="checkbox" name="scope" value={s} defaultChecked={s === 'appointments'} />{t(`proxy.scope_${s}`)}</label>)}</fieldset>
      <label className="field"><span className="field-label">{t('proxy.until')}</span><input className="field-input" type="date" name="until" /></label>
      <Button type="submit" variant="primary" busy={ask.isPending} data-testid="proxy-send">{t('proxy.ask')}</Button>
    </form>
  );
}
