// The clinics of the installation: made, closed, opened, limited, deleted.
import { timeFormat } from '../../core/time/time';
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { CopyButton } from '../../ui/CopyButton';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { Sheet } from '../ui/Sheet';
import { AdminPages } from './AdminPages';
import { clinics, type Clinic, type MadeClinic, type NewClinic } from './api';
import { ClinicSheet } from './ClinicSheet';

const TONE = { active: 'good', suspended: 'warn', deleting: 'danger' } as const;

export function Clinics() {
  const t = useT();
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState<MadeClinic | null>(null);
  const [open, setOpen] = useState<number | null>(null);
  const list = useQuery({ queryKey: ['clinics'], queryFn: () => clinics.list(hub.api) });
  return (
    <AdminPages lead={t('clinics.lead')} action={<Button variant="primary" icon="board" onClick={() => { setMade(null); setAdding(true); }} data-testid="clinic-add">{t('clinics.add')}</Button>}>
      {made?.admin ? (
        <Notice tone="good" title={made.name} testId="clinic-made">
          <p>{t('clinics.made')}</p><p className="copyable" data-testid="clinic-link">{made.admin.link}</p>
          <CopyButton text={made.admin.link} words={t('clinics.link')} testId="clinic-copy" small />
        </Notice>
      ) : null}
      <section className="card panel" aria-label={t('admin.clinics')}>
        {list.isError ? <ErrorState error={list.error} onRetry={() => void list.refetch()} /> : list.data === undefined ? <Skeleton lines={4} />
          : <ul className="things">{list.data.clinics.map((c) => <Row key={c.id} clinic={c} onOpen={() => setOpen(c.id)} />)}</ul>}
      </section>
      <Gone />
      <Sheet open={adding} title={t('clinics.add')} onClose={() => setAdding(false)} testId="clinic-sheet">
        <Add onDone={(clinic) => { setMade(clinic); setAdding(false); void queries.invalidateQueries({ queryKey: ['clinics'] }); }} />
      </Sheet>
      {open === null ? null : <ClinicSheet id={open} onClose={() => setOpen(null)} />}
    </AdminPages>
  );
}

export function useStatus(): (clinic: Clinic) => string {
  const t = useT();
  const language = useLanguage();
  return (clinic) => (clinic.status === 'deleting'
    ? t('clinics.status_deleting', { date: timeFormat(language, { dateStyle: 'medium' }).format(new Date(clinic.delete_at ?? 0)) })
    : t(clinic.status === 'active' ? 'clinics.status_active' : 'clinics.status_suspended'));
}

function Row({ clinic, onOpen }: { clinic: Clinic; onOpen: () => void }) {
  const t = useT();
  const status = useStatus();
  return (
    <li className="thing" data-testid="clinic" data-slug={clinic.slug} data-status={clinic.status}>
      <div><strong>{clinic.name}</strong><span className="muted small">{clinic.address} · {clinic.zone}{clinic.home ? ` · ${t('clinics.home')}` : ''}</span></div>
      <div className="thing-acts"><span className="chip" data-tone={TONE[clinic.status]}>{status(clinic)}</span>
        <Button icon="settings" onClick={onOpen} aria-label={t('clinics.open', { name: clinic.name })} data-testid="clinic-open" /></div>
    </li>
  );
}

function Add({ onDone }: { onDone: (clinic: MadeClinic) => void }) {
  const t = useT();
  const make = useMutation({ mutationFn: (clinic: NewClinic) => clinics.create(hub.api, clinic), onSuccess: onDone });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const text = (name: string) => String(data.get(name) ?? '').trim();
    make.mutate({ slug: text('slug'), name: text('name'), zone: text('zone'), admin: { name: text('admin_name'), email: text('admin_email') } });
  };
  const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;
  return (
    <form className="signin-form" onSubmit={submit}>
      <Failed error={make.error} />
      <label className="field"><span className="field-label">{t('clinics.name')}</span><input className="field-input" name="name" required data-testid="clinic-name" /></label>
      <label className="field"><span className="field-label">{t('clinics.slug')}</span><span className="muted small">{t('clinics.slug_text')}</span><input className="field-input" name="slug" required pattern="[a-z0-9][a-z0-9\-]*" autoComplete="off" data-testid="clinic-slug" /></label>
      <label className="field"><span className="field-label">{t('clinics.zone')}</span>
        <select className="field-input" name="zone" defaultValue={zone}>{[...new Set([zone, 'UTC', ...Intl.supportedValuesOf('timeZone')])].map((z) => <option key={z}>{z}</option>)}</select></label>
      <label className="field"><span className="field-label">{t('clinics.admin_name')}</span><input className="field-input" name="admin_name" required autoComplete="off" data-testid="clinic-admin-name" /></label>
      <label className="field"><span className="field-label">{t('clinics.admin_email')}</span><input className="field-input" name="admin_email" type="email" required autoComplete="off" data-testid="clinic-admin-email" /></label>
      <Button type="submit" variant="primary" busy={make.isPending} data-testid="clinic-create">{t('clinics.create')}</Button>
    </form>
  );
}

function Gone() {
  const t = useT();
  const language = useLanguage();
  const { data } = useQuery({ queryKey: ['certificates'], queryFn: () => clinics.certificates(hub.api) });
  if (!data || data.certificates.length === 0) return null;
  const date = timeFormat(language, { dateStyle: 'medium' });
  return (
    <section className="card panel" aria-label={t('clinics.certificates')}>
      <h2>{t('clinics.certificates')}</h2>
      <ul>{data.certificates.map((c) => <li key={c.slug + c.erased_at}>{t('clinics.certificate', { slug: c.slug, rows: c.rows ?? '–', files: c.files ?? '–', date: date.format(new Date(c.erased_at)) })}</li>)}</ul>
    </section>
  );
}
