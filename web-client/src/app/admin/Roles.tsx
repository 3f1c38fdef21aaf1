// What each role may do: drawn from the tables by which the server decides, so that nothing here can be out of date.
import { useQuery } from '@tanstack/react-query';
import { identity } from '../../core/api/endpoints';
import type { RoleRules } from '../../core/api/types';
import { ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub } from '../hub';
import { elementNames, kindName } from '../words';
import { AdminPages } from './AdminPages';
import { ROLES } from './api';
import { OwnRoles } from './OwnRoles';
import { ROLE } from './People';
import { word, type Words } from './words';

export function Roles() {
  const t = useT();
  const rules = useQuery({ queryKey: ['access-rules'], queryFn: () => identity.rules(hub.api), staleTime: 600_000 });
  return (
    <AdminPages lead={t('roles.lead')}>
      <OwnRoles />
      {rules.isError ? <ErrorState error={rules.error} onRetry={() => void rules.refetch()} /> : !rules.data ? <Skeleton lines={8} /> : (
        <>
          {ROLES.map((name) => {
            const role = rules.data.roles.find((r) => r.role === name);
            return role ? <OfRole key={name} role={role} title={t(ROLE[name])} t={t} /> : null;
          })}
          {rules.data.roles.filter((r) => r.name !== undefined).map((r) => <OfRole key={r.role} role={r} title={r.name ?? r.role} t={t} />)}
          <section className="card panel" aria-labelledby="role-proxies" data-testid="role-proxies">
            <h2 id="role-proxies">{t('roles.proxies')}</h2>
            <p className="small">{t('roles.proxies_text')}</p>
            <Rules caption={t('roles.records')} t={t} rows={rules.data.proxies.map((p) => ({
              what: p.types.map((type) => (type === 'Patient' ? t('roles.proxies_patient') : kindName(t, type))).join(', '), may: [...p.letters].map((l) => word(t, 'letter', l)).join(', '), whose: t(`proxy.scope_${p.scope as 'results'}`),
            }))} />
          </section>
          <p className="muted small">{t('roles.hidden', { elements: elementNames(t, rules.data.hidden) })}</p>
        </>
      )}
      <Notice>{t('roles.never')}</Notice>
    </AdminPages>
  );
}

function OfRole({ role, title, t }: { role: RoleRules; title: string; t: Words }) {
  const id = `role-${role.role.replace(':', '-')}`;
  const kinds = [...new Set(role.things.map((thing) => `${thing.kind} ${thing.how}`))].map((both) => {
    const [kind = '', how = ''] = both.split(' ');
    return { kind, how, acts: role.things.filter((x) => x.kind === kind && x.how === how).map((x) => word(t, 'act', x.action)) };
  });
  return (
    <section className="card panel" aria-labelledby={id} data-testid={id}>
      <h2 id={id}>{title}</h2>
      <Rules caption={t('roles.records')} t={t} rows={role.records.map((r) => ({
        what: word(t, 'class', r.class), may: [...r.letters].map((l) => word(t, 'letter', l)).join(', '), whose: r.class === 'directory' && r.breadth === 'all' ? t('roles.how_all') : word(t, 'breadth', r.breadth),
      }))} />
      {role.writes.map((w) => <p key={w.kind} className="small">{t('roles.writes', { kind: kindName(t, w.kind), elements: elementNames(t, w.elements) })}</p>)}
      <Rules caption={t('roles.things')} t={t} rows={kinds.map((k) => ({ what: word(t, 'kind', k.kind), may: k.acts.join(', '), whose: word(t, 'how', k.how) }))} />
    </section>
  );
}

function Rules({ caption, rows, t }: { caption: string; rows: { what: string; may: string; whose: string }[]; t: Words }) {
  return rows.length === 0 ? null : (
    <table className="rules">
      <caption>{caption}</caption>
      <thead><tr><th scope="col">{t('roles.what')}</th><th scope="col">{t('roles.may')}</th><th scope="col">{t('roles.whose')}</th></tr></thead>
      <tbody>{rows.map((r) => <tr key={r.what + r.may + r.whose}><th scope="row">{r.what}</th><td>{r.may}</td><td>{r.whose}</td></tr>)}</tbody>
    </table>
  );
}
