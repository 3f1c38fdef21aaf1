// How others see somebody, and how they are reached.
import { useMutation, useQuery } from '@tanstack/react-query';
import type { FormEvent } from 'react';
import { LANGUAGES, switchLanguage, type Language } from '../../core/i18n/i18n';
import { saveLook } from '../../theme/preferences';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { Failed } from '../ui/Failed';
import { AccountPages } from './AccountPages';
import { Address } from './Address';
import { account, type Profile as Own, type ProfileEdit } from './api';

export function Profile() {
  const t = useT();
  const own = useQuery({ queryKey: ['profile'], queryFn: () => account.profile(hub.api), staleTime: Infinity });
  return (
    <AccountPages lead={t('profile.lead')}>
      {own.isError ? <ErrorState error={own.error} onRetry={() => void own.refetch()} /> : own.data ? <><Form own={own.data} /><Address own={own.data} /></> : <Skeleton lines={6} />}
    </AccountPages>
  );
}

function Form({ own }: { own: Own }) {
  const t = useT();
  const save = useMutation({
    mutationFn: (edit: ProfileEdit) => account.save(hub.api, edit),
    onSuccess: (now) => {
      queries.setQueryData(['profile'], now);
      saveLook({ zone: now.zone });
      if (now.language && now.language in LANGUAGES) void switchLanguage(now.language as Language);
    },
  });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const text = (name: string) => { const value = String(data.get(name) ?? '').trim(); return value === '' ? null : value; };
    save.mutate({ name: text('name') ?? '', language: text('language'), zone: text('zone'), phone: text('phone'), pronouns: text('pronouns') });
  };
  const language = LANGUAGES[own.defaults.language as Language] ?? own.defaults.language;
  return (
    <form className="card panel" onSubmit={submit}>
      <Failed error={save.error} />
      {save.isSuccess ? <Notice tone="good" testId="profile-saved">{t('profile.saved')}</Notice> : null}
      <div className="form-grid">
        <label className="field"><span className="field-label">{t('profile.name')}</span><input className="field-input" name="name" required maxLength={200} defaultValue={own.name} autoComplete="name" data-testid="profile-name" /></label>
        <label className="field"><span className="field-label">{t('profile.language')}</span>
          <select className="field-input" name="language" defaultValue={own.language ?? ''}><option value="">{t('profile.language_default', { name: language })}</option>{Object.entries(LANGUAGES).map(([key, name]) => <option key={key} value={key}>{name}</option>)}</select></label>
        <label className="field"><span className="field-label">{t('profile.zone')}</span>
          <select className="field-input" name="zone" defaultValue={own.zone ?? ''}><option value="">{t('profile.zone_default', { name: own.defaults.zone })}</option>{Intl.supportedValuesOf('timeZone').map((z) => <option key={z}>{z}</option>)}</select></label>
        <label className="field"><span className="field-label">{t('profile.phone')}</span><input className="field-input" name="phone" type="tel" defaultValue={own.phone ?? ''} autoComplete="tel" /></label>
        <label className="field"><span className="field-label">{t('profile.pronouns')}</span><input className="field-input" name="pronouns" maxLength={40} defaultValue={own.pronouns ?? ''} /></label>
      </div>
      <div className="form-acts"><Button type="submit" variant="primary" busy={save.isPending} data-testid="profile-save">{t('profile.save')}</Button></div>
    </form>
  );
}
