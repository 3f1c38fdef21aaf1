// Roles of the clinic's own: each a choice from what clinicians and the front desk may do. The choices come from the server's tables.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import type { MessageKey } from '../../core/i18n/i18n';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { Sheet } from '../ui/Sheet';
import { ownRoles, type OwnRole, type RoleChoice } from './api';
import { word } from './words';

export const useOwnRoles = () => useQuery({ queryKey: ['own-roles'], queryFn: () => ownRoles.list(hub.api), staleTime: 60_000 });
const renew = () => Promise.all(['own-roles', 'access-rules', 'people'].map((key) => queries.invalidateQueries({ queryKey: [key] })));

export function OwnRoles() {
  const t = useT();
  const all = useOwnRoles();
  const [open, setOpen] = useState<OwnRole | 'new' | null>(null);
  return (
    <section className="card panel" aria-labelledby="own-roles" data-testid="own-roles">
      <div className="panel-head">
        <h2 id="own-roles">{t('roles.own')}</h2>
        <Button variant="primary" onClick={() => setOpen('new')} data-testid="role-new">{t('roles.own_new')}</Button>
      </div>
      <p className="muted small">{t('roles.own_text')}</p>
      {all.isError ? <ErrorState error={all.error} onRetry={() => void all.refetch()} /> : !all.data ? <Skeleton lines={3} /> : all.data.roles.length === 0 ? <p className="muted">{t('roles.own_none')}</p> : (
        <ul className="things">{all.data.roles.map((role) => (
          <li key={role.id} className="thing" data-testid="own-role" data-name={role.name}>
            <div><strong>{role.name}</strong><span className="muted small">{t('roles.own_facts', { count: role.people ?? 0, version: role.version })}</span></div>
            <div className="thing-acts"><Button onClick={() => setOpen(role)} aria-label={t('roles.own_open', { name: role.name })} data-testid="own-role-open">{t('roles.own_change')}</Button></div>
          </li>
        ))}</ul>
      )}
      {open && all.data ? <RoleSheet role={open === 'new' ? null : open} choices={all.data.choices} onClose={() => setOpen(null)} /> : null}
    </section>
  );
}

function RoleSheet({ role, choices, onClose }: { role: OwnRole | null; choices: RoleChoice[]; onClose: () => void }) {
  const t = useT();
  const done = { onSuccess: () => { void renew(); onClose(); } };
  const save = useMutation({ mutationFn: (edit: { name: string; permissions: string[] }) => role ? ownRoles.change(hub.api, role.id, { ...edit, version: role.version }) : ownRoles.make(hub.api, edit), ...done });
  const remove = useMutation({ mutationFn: () => ownRoles.remove(hub.api, role?.id ?? ''), ...done });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    save.mutate({ name: String(data.get('name') ?? ''), permissions: data.getAll('permission').map(String) });
  };
  const groups = [...new Set(choices.map((c) => `${c.of} ${c.class ?? c.kind}`))].map((key) => choices.filter((c) => `${c.of} ${c.class ?? c.kind}` === key));
  return (
    <Sheet open title={role ? role.name : t('roles.own_new')} onClose={onClose} testId="role-sheet">
      <form className="signin-form" onSubmit={submit}>
        <Failed error={save.error ?? remove.error} />
        <label className="field"><span className="field-label">{t('roles.own_name')}</span><input className="field-input" name="name" required maxLength={60} defaultValue={role?.name} autoComplete="off" data-testid="role-name" /></label>
        {(['clinician', 'staff'] as const).map((of) => (
          <details key={of} className="role-part" open={groups.some(([c]) => c?.of === of)} data-testid={`role-of-${of}`}>
            <summary>{t(`roles.own_of_${of}`)}</summary>
            {groups.filter(([c]) => c?.of === of).map((group) => <Group key={group[0]?.permission} group={group} chosen={role?.permissions ?? []} />)}
          </details>
        ))}
        {role ? <Notice>{t('roles.own_at_once')}</Notice> : null}
        <div className="dialog-acts">
          {role ? <Button variant="danger" busy={remove.isPending} onClick={() => remove.mutate()} data-testid="role-delete">{t('roles.own_delete')}</Button> : null}
          <Button type="submit" variant="primary" busy={save.isPending} data-testid="role-save">{t('people.save')}</Button>
        </div>
      </form>
    </Sheet>
  );
}

function Group({ group, chosen }: { group: RoleChoice[]; chosen: readonly string[] }) {
  const t = useT();
  const [first] = group;
  if (!first) return null;
  const title = first.class ? word(t, 'class', first.class) : word(t, 'kind', first.kind ?? '');
  const whose = first.breadth ? word(t, 'breadth', first.breadth) : null;
  return (
    <fieldset className="choices">
      <legend>{title}{whose ? <span className="muted small"> ({whose})</span> : null}</legend>
      {group.map((c) => (
        <label key={c.permission} className="choice"><input type="checkbox" name="permission" value={c.permission} defaultChecked={chosen.includes(c.permission)} data-testid={c.permission} />
          {c.class ? t(`roles.step_${c.act}` as MessageKey) : word(t, 'act', c.act)}</label>
      ))}
    </fieldset>
  );
}
