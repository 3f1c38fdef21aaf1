// The clinic's data as one archive: asked for, watched while it is made, fetched.
import { useMutation, useQuery } from '@tanstack/react-query';
import { timeFormat } from '../../core/time/time';
import { useState, type FormEvent } from 'react';
import { Button, ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { saveBlob, sizeOf } from '../ui/save';
import { Failed } from '../ui/Failed';
import { AdminPages } from './AdminPages';
import { exports, type Export } from './api';

export function Data() {
  const t = useT();
  const list = useQuery({
    queryKey: ['exports'], queryFn: () => exports.list(hub.api),
    refetchInterval: (query) => (query.state.data?.exports.some((e) => e.state === 'running') ? 700 : false),
  });
  const [passphrase, setPassphrase] = useState('');
  const begin = useMutation({
    mutationFn: () => exports.begin(hub.api, passphrase),
    onSuccess: () => { setPassphrase(''); return queries.invalidateQueries({ queryKey: ['exports'] }); },
  });
  const submit = (event: FormEvent) => { event.preventDefault(); begin.mutate(); };
  return (
    <AdminPages lead={t('data.lead')}>
      <form className="card panel" onSubmit={submit}>
        <div><h2>{t('data.export')}</h2><p className="muted">{t('data.export_text')}</p></div>
        <Failed error={begin.error} />
        <label className="field"><span className="field-label">{t('data.passphrase')}</span><span className="muted small">{t('data.passphrase_text')}</span>
          <input className="field-input" type="password" minLength={12} autoComplete="new-password" value={passphrase} onChange={(e) => setPassphrase(e.target.value)} data-testid="export-passphrase" /></label>
        <div className="form-acts"><Button type="submit" variant="primary" busy={begin.isPending} data-testid="export-begin">{t('data.begin')}</Button></div>
      </form>
      <section className="card panel" aria-label={t('data.export')} aria-live="polite">
        {list.isError ? <ErrorState error={list.error} onRetry={() => void list.refetch()} /> : list.data === undefined ? <Skeleton lines={2} />
          : list.data.exports.length === 0 ? <p className="muted">{t('data.none')}</p>
          : <ul className="things">{list.data.exports.map((e) => <Row key={e.id} job={e} />)}</ul>}
      </section>
    </AdminPages>
  );
}

function Row({ job }: { job: Export }) {
  const t = useT();
  const language = useLanguage();
  const fetchIt = useMutation({ mutationFn: async () => saveBlob(await exports.archive(hub.api, job.id), `clinic-${job.asked_at.slice(0, 10)}.${job.sealed ? 'tar.age' : 'tar'}`) });
  const at = timeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(job.asked_at));
  const state = job.state === 'running' ? t('data.running', { step: job.step }) : job.state === 'done' ? t('data.done', { size: sizeOf(job.bytes, language) })
    : t(job.state === 'failed' ? 'data.failed' : 'data.removed');
  return (
    <li className="thing" data-testid="export" data-state={job.state} data-sha256={job.sha256}>
      <div><strong>{at}</strong><span className="muted small">{state} · {t(job.sealed ? 'data.sealed' : 'data.plain')}</span>
        {job.state === 'running' ? <><progress className="meter" value={job.steps_done} max={job.steps} aria-label={t('data.export')} /><span className="small num">{t('data.progress', { done: job.steps_done, all: job.steps })}</span></> : null}
        <Failed error={fetchIt.error} /></div>
      {job.state === 'done' ? <Button icon="file" busy={fetchIt.isPending} onClick={() => fetchIt.mutate()} data-testid="export-download">{t('data.download')}</Button> : null}
    </li>
  );
}
