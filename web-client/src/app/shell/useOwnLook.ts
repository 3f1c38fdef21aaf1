// What somebody has chosen on any device takes effect on this one after signing in.
import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { LANGUAGES, switchLanguage, translation, type Language } from '../../core/i18n/i18n';
import { saveLook } from '../../theme/preferences';
import { account, type Preferences, type Profile } from '../account/api';
import { hub, queries } from '../hub';

export function useOwnLook(user: string | undefined, own: Profile | undefined): void {
  const { data } = useQuery({ queryKey: ['preferences'], queryFn: () => account.preferences(hub.api), staleTime: Infinity, enabled: user !== undefined });
  useEffect(() => {
    if (data) saveLook({ theme: data.theme, text_size: data.text_size, contrast: data.contrast, clock: data.clock });
  }, [data]);
  const zone = own?.zone;
  useEffect(() => { if (zone !== undefined) saveLook({ zone }); }, [zone]);
  const language = own?.language;
  useEffect(() => {
    if (language && language in LANGUAGES && language !== translation.get()?.language) void switchLanguage(language as Language);
  }, [language]);
}

/** A choice made in passing, as in the person's menu: it acts at once, and is kept with the account. */
export async function prefer(change: Partial<Preferences>): Promise<void> {
  const now = await queries.fetchQuery({ queryKey: ['preferences'], queryFn: () => account.preferences(hub.api), staleTime: Infinity });
  const all = { ...now, ...change };
  queries.setQueryData(['preferences'], all);
  await account.prefer(hub.api, all);
}

export async function preferLanguage(language: Language): Promise<void> {
  const own = await queries.fetchQuery({ queryKey: ['profile'], queryFn: () => account.profile(hub.api), staleTime: Infinity });
  const { name, zone, phone, pronouns } = own;
  queries.setQueryData(['profile'], await account.save(hub.api, { name, zone, phone, pronouns, language }));
}
