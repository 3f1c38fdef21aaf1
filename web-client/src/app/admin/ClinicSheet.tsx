// One clinic: what it uses and may use, its host names, and the acts that close its doors. Deleting asks for its name.
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { sizeOf } from '../ui/save';
import { Failed } from '../ui/Failed';
import { Sheet } from '../ui/Sheet';
import { clinics, type Clinic, type ClinicDetail } from './api';
import { useStatus } from './Clinics';

const MEGABYTE = 1_000_000;

export function ClinicSheet({ id, onClose }: { id: number; onClose: () => void }) {
  const t = useT();
  const one = useQuery({ queryKey: ['clinic', id], queryFn: () => clinics.one(hub.api, id) });
  return (
    <Sheet open title={one.data?.name ?? t('admin.clinics')} onClose={onClose} testId="clinic-detail">
      {one.isError ? <ErrorState error={one.error} onRetry={() => void one.refetch()} /> : one.data ? <Detail clinic={one.data} /> : <Skeleton lines={6} />}
    </Sheet>
  );
}

function Detail({ clinic }: { clinic: ClinicDetail }) {
  const t = useT();
  const language = useLanguage();
  const status = useStatus();
  const [deleting, setDeleting] = useState(false);
  const [typed, setTyped] = useState('');
  const act = useMutation({
    mutationFn: (what: () => Promise<Clinic>) => what(),
    onSuccess: () => { setDeleting(false); return Promise.all([queries.invalidateQueries({ queryKey: ['clinics'] }), queries.invalidateQueries({ queryKey: ['clinic', clinic.id] })]); },
  });
  const limits = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const number = (name: string, times = 1) => (data.get(name) === '' ? null : Math.round(Number(data.get(name)) * times));
    act.mutate(() => clinics.edit(hub.api, clinic.id, { quotas: { users: number('users'), storage_bytes: number('storage', MEGABYTE), messages_per_day: number('messages') } }));
  };
  const domain = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = event.currentTarget;
    const host = String(new FormData(form).get('host'));
    act.mutate(() => clinics.addDomain(hub.api, clinic.id, host), { onSuccess: () => form.reset() });
  };
  const used = (n: number, most: number | null, show = (v: number) => String(v)) => (most === null ? t('clinics.no_limit', { used: show(n) }) : t('clinics.of', { used: show(n), most: show(most) }));
  const { quotas, usage } = clinic;
  return (
    <>
      <p><span className="chip" data-testid="clinic-status">{status(clinic)}</span></p>
      <Failed error={act.error} />
      <dl className="facts-row">
        <div><dt>{t('clinics.users')}</dt><dd>{used(usage.users, quotas.users)}</dd></div>
        <div><dt>{t('clinics.storage')}</dt><dd>{used(usage.storage_bytes, quotas.storage_bytes, (v) => sizeOf(v, language))}</dd></div>
        <div><dt>{t('clinics.messages')}</dt><dd>{used(usage.messages_today, quotas.messages_per_day)}</dd></div>
      </dl>
      <form className="choices" onSubmit={limits} key={JSON.stringify(quotas)}>
        <h3>{t('clinics.quotas')}</h3>
        <div className="form-grid">
          <label className="field"><span className="field-label">{t('clinics.quota_users')}</span><input className="field-input" name="users" type="number" min={1} defaultValue={quotas.users ?? ''} /></label>
          <label className="field"><span className="field-label">{t('clinics.quota_storage')}</span><input className="field-input" name="storage" type="number" min={1} defaultValue={quotas.storage_bytes === null ? '' : quotas.storage_bytes / MEGABYTE} /></label>
          <label className="field"><span className="field-label">{t('clinics.quota_messages')}</span><input className="field-input" name="messages" type="number" min={1} defaultValue={quotas.messages_per_day ?? ''} /></label>
        </div>
        <div className="form-acts"><Button type="submit" busy={act.isPending}>{t('clinics.save')}</Button></div>
      </form>
      <form className="choices" onSubmit={domain}>
        <h3>{t('clinics.domains')}</h3>
        {clinic.domains.map((host) => <div key={host} className="form-acts"><span className="copyable">{host}</span><Button size="s" icon="close" aria-label={t('clinics.domain_remove', { host })} onClick={() => act.mutate(() => clinics.removeDomain(hub.api, clinic.id, host))} /></div>)}
        <label className="field"><span className="field-label">{t('clinics.domain_new')}</span><input className="field-input" name="host" required autoComplete="off" placeholder="clinic.example.org" data-testid="domain-host" /></label>
        <div className="form-acts"><Button type="submit" busy={act.isPending} data-testid="domain-add">{t('clinics.domain_add')}</Button></div>
      </form>
      {clinic.home ? <Notice>{t('clinics.home')}</Notice> : deleting ? (
        <form className="choices" onSubmit={(event) => { event.preventDefault(); act.mutate(() => clinics.delete(hub.api, clinic.id, typed)); }}>
          <Notice tone="danger" title={t('clinics.delete_title', { name: clinic.name })}>{t('clinics.delete_text')}</Notice>
          <label className="field"><span className="field-label">{t('clinics.delete_type', { slug: clinic.slug })}</span><input className="field-input" value={typed} onChange={(e) => setTyped(e.target.value)} autoComplete="off" spellCheck={false} data-testid="delete-slug" /></label>
          <div className="form-acts"><Button onClick={() => setDeleting(false)}>{t('clinics.cancel')}</Button>
            <Button type="submit" variant="danger" disabled={typed !== clinic.slug} busy={act.isPending} data-testid="delete-do">{t('clinics.delete_do')}</Button></div>
        </form>
      ) : (
        <div className="form-acts">
          {clinic.status === 'active' ? <Button busy={act.isPending} onClick={() => act.mutate(() => clinics.act(hub.api, clinic.id, 'suspend'))} data-testid="clinic-suspend">{t('clinics.suspend')}</Button>
            : <Button busy={act.isPending} onClick={() => act.mutate(() => clinics.act(hub.api, clinic.id, 'resume'))} data-testid="clinic-resume">{t('clinics.resume')}</Button>}
          {clinic.status === 'deleting' ? null : <Button variant="danger" onClick={() => setDeleting(true)} data-testid="clinic-delete">{t('clinics.delete')}</Button>}
        </div>
      )}
    </>
  );
}
