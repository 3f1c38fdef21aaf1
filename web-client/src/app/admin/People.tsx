// Everyone who can sign in: looked for, invited, opened.
import { useInfiniteQuery, useMutation } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import type { MessageKey } from '../../core/i18n/i18n';
import type { Role } from '../../core/api/types';
import { Avatar, Button, EmptyState, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { Sheet } from '../ui/Sheet';
import { AdminPages } from './AdminPages';
import { people, ROLES, type Person, type Standing } from './api';
import { useOwnRoles } from './OwnRoles';
import { PersonSheet } from './PersonSheet';

export const ROLE: Record<(typeof ROLES)[number], MessageKey> = { admin: 'role.admin', clinician: 'role.clinician', staff: 'role.staff', patient: 'role.patient' };
export const STANDING: Record<Standing, { key: MessageKey; tone: string }> = {
  active: { key: 'people.standing_active', tone: 'good' }, invited: { key: 'people.standing_invited', tone: 'info' },
  expired: { key: 'people.standing_expired', tone: 'warn' }, locked: { key: 'people.standing_locked', tone: 'danger' },
};

export function People() {
  const t = useT();
  const [search, setSearch] = useState('');
  const [role, setRole] = useState('');
  const [inviting, setInviting] = useState(false);
  const [sent, setSent] = useState(false);
  const [open, setOpen] = useState<string | null>(null);
  const list = useInfiniteQuery({
    queryKey: ['people', search, role], initialPageParam: '',
    queryFn: ({ pageParam }) => people.list(hub.api, search, role, pageParam || undefined),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const found = list.data?.pages.flatMap((page) => page.users);
  return (
    <AdminPages lead={t('people.lead')} action={<Button variant="primary" icon="people" onClick={() => { setSent(false); setInviting(true); }} data-testid="invite">{t('people.invite')}</Button>}>
      <div className="people-tools">
        <label className="field"><span className="field-label">{t('people.search')}</span>
          <input className="field-input" type="search" value={search} onChange={(e) => setSearch(e.target.value)} autoComplete="off" data-testid="people-search" /></label>
        <label className="field"><span className="field-label">{t('people.role')}</span>
          <select className="field-input" value={role} onChange={(e) => setRole(e.target.value)}>
            <option value="">{t('people.any')}</option>
            {ROLES.map((r) => <option key={r} value={r}>{t(ROLE[r])}</option>)}
          </select></label>
      </div>
      {sent ? <Notice tone="good" testId="invited">{t('people.invited_note')}</Notice> : null}
      <section className="card panel" aria-label={t('admin.people')}>
        {list.isError ? <ErrorState error={list.error} onRetry={() => void list.refetch()} />
          : found === undefined ? <Skeleton lines={6} />
          : found.length === 0 ? <EmptyState icon="people" title={t('people.none')}>{t('people.none_text')}</EmptyState>
          : <ul className="things">{found.map((p) => <Row key={p.id} person={p} onOpen={() => setOpen(p.id)} />)}</ul>}
        {list.hasNextPage ? <div className="form-acts"><Button busy={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>{t('people.more')}</Button></div> : null}
      </section>
      <Sheet open={inviting} title={t('people.invite')} onClose={() => setInviting(false)} testId="invite-sheet">
        <Invite onDone={() => { setInviting(false); setSent(true); void queries.invalidateQueries({ queryKey: ['people'] }); }} />
      </Sheet>
      {open ? <PersonSheet id={open} onClose={() => setOpen(null)} /> : null}
    </AdminPages>
  );
}

function Row({ person, onOpen }: { person: Person; onOpen: () => void }) {
  const t = useT();
  const own = useOwnRoles().data?.roles ?? [];
  const { key, tone } = STANDING[person.standing];
  return (
    <li className="thing" data-testid="person" data-email={person.email}>
      <div className="thing-who"><Avatar name={person.name} size="s" /><strong>{person.name}</strong><span className="muted small">{person.email} · {person.roles.map((r) => r.startsWith('own:') ? (own.find((o) => o.role === r)?.name ?? '') : t(ROLE[r as keyof typeof ROLE] ?? 'role.patient')).join(', ')}</span></div>
      <div className="thing-acts">
        <span className="chip" data-tone={tone} data-testid="standing">{t(key)}</span>
        <Button onClick={onOpen} aria-label={t('people.open', { name: person.name })} icon="settings" data-testid="person-open" />
      </div>
    </li>
  );
}

export function RoleChoices({ chosen }: { chosen: readonly Role[] }) {
  const t = useT();
  const own = useOwnRoles().data?.roles ?? [];
  return (
    <fieldset className="choices">
      <legend>{t('people.roles')}</legend>
      {own.map((r) => (
        <label key={r.id} className="choice"><input type="checkbox" name="roles" value={r.role} defaultChecked={chosen.includes(r.role)} data-testid="role-own" data-name={r.name} />{r.name}</label>
      ))}
      {ROLES.map((r) => (
        <label key={r} className="choice"><input type="checkbox" name="roles" value={r} defaultChecked={chosen.includes(r)} data-testid={`role-${r}`} />{t(ROLE[r])}</label>
      ))}
    </fieldset>
  );
}

export function rolesOf(data: FormData): Role[] {
  return data.getAll('roles').map((role) => String(role) as Role);
}

function Invite({ onDone }: { onDone: () => void }) {
  const t = useT();
  const send = useMutation({ mutationFn: (who: { email: string; name: string; roles: Role[] }) => people.invite(hub.api, who), onSuccess: onDone });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    send.mutate({ email: String(data.get('email')), name: String(data.get('name')), roles: rolesOf(data) });
  };
  return (
    <form className="signin-form" onSubmit={submit}>
      <Failed error={send.error} />
      <label className="field"><span className="field-label">{t('people.name')}</span><input className="field-input" name="name" required autoComplete="off" data-testid="invite-name" /></label>
      <label className="field"><span className="field-label">{t('people.email')}</span><input className="field-input" name="email" type="email" required autoComplete="off" data-testid="invite-email" /></label>
      <RoleChoices chosen={['clinician']} />
      <Button type="submit" variant="primary" busy={send.isPending} data-testid="invite-send">{t('people.invite_send')}</Button>
    </form>
  );
}
