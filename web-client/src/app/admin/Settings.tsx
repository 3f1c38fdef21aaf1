// What the clinic has chosen, every version of it, and the way back.
import { useMutation, useQuery } from '@tanstack/react-query';
import type { FormEvent } from 'react';
import { LANGUAGES } from '../../core/i18n/i18n';
import { timeFormat } from '../../core/time/time';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { AdminPages } from './AdminPages';
import { settings, type Settings as All, type Standings } from './api';

const CHOICES = ['require_two_factors', 'relationship_required', 'link_birth_date'] as const;
const NUMBERS = [['idle_minutes', 1, 720], ['majority_age', 12, 25], ['invitation_days', 1, 30]] as const;

export function Settings() {
  const t = useT();
  const now = useQuery({ queryKey: ['settings'], queryFn: () => settings.get(hub.api) });
  return (
    <AdminPages lead={t('settings.lead')}>
      {now.isError ? <ErrorState error={now.error} onRetry={() => void now.refetch()} /> : now.data ? <Form now={now.data} /> : <Skeleton lines={6} />}
      {now.data ? <Versions now={now.data} /> : null}
    </AdminPages>
  );
}

const renew = () => Promise.all([queries.invalidateQueries({ queryKey: ['settings'] }), queries.invalidateQueries({ queryKey: ['settings-versions'] })]);

function Form({ now }: { now: Standings }) {
  const t = useT();
  const save = useMutation({ mutationFn: (all: All) => settings.put(hub.api, now.version, all), onSuccess: renew });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const number = (name: string) => Number(data.get(name));
    save.mutate({
      require_two_factors: data.get('require_two_factors') !== null, relationship_required: data.get('relationship_required') !== null,
      link_birth_date: data.get('link_birth_date') !== null, idle_minutes: number('idle_minutes'), majority_age: number('majority_age'),
      invitation_days: number('invitation_days'), language: String(data.get('language')),
    });
  };
  return (
    <form className="card panel" onSubmit={submit} key={now.version}>
      <Failed error={save.error} />
      {save.isSuccess ? <Notice tone="good" testId="settings-saved">{t('settings.saved')}</Notice> : null}
      {CHOICES.map((name) => (
        <label key={name} className="choice"><input type="checkbox" name={name} defaultChecked={now.settings[name]} />{t(`settings.${name}`)}</label>
      ))}
      <div className="form-grid">
        {NUMBERS.map(([name, min, max]) => (
          <label key={name} className="field"><span className="field-label">{t(`settings.${name}`)}</span>
            <input className="field-input" type="number" name={name} min={min} max={max} required defaultValue={now.settings[name]} data-testid={`setting-${name}`} /></label>
        ))}
        <label className="field"><span className="field-label">{t('settings.language')}</span>
          <select className="field-input" name="language" defaultValue={now.settings.language}>{Object.entries(LANGUAGES).map(([key, name]) => <option key={key} value={key}>{name}</option>)}</select></label>
      </div>
      <div className="form-acts"><Button type="submit" variant="primary" busy={save.isPending} data-testid="settings-save">{t('settings.save')}</Button></div>
    </form>
  );
}

function Versions({ now }: { now: Standings }) {
  const t = useT();
  const language = useLanguage();
  const all = useQuery({ queryKey: ['settings-versions'], queryFn: () => settings.versions(hub.api) });
  const back = useMutation({ mutationFn: (version: number) => settings.rollback(hub.api, version), onSuccess: renew });
  const at = timeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });
  return (
    <section className="card panel" aria-label={t('settings.versions')}>
      <h2>{t('settings.versions')}</h2>
      <Failed error={back.error} />
      {all.data?.versions.length === 0 ? <p className="muted">{t('settings.none')}</p> : null}
      <ol className="things">{(all.data?.versions ?? []).map((v) => (
        <li key={v.version} className="thing" data-testid="version" data-version={v.version}>
          <div><strong>{t('settings.version', { n: v.version })}</strong><span className="muted small">{at.format(new Date(v.at))}</span></div>
          {v.version === now.version ? <span className="chip" data-tone="good">{t('settings.current')}</span>
            : <Button size="s" icon="back" busy={back.isPending} onClick={() => back.mutate(v.version)} data-testid="settings-back">{t('settings.back')}</Button>}
        </li>
      ))}</ol>
    </section>
  );
}
