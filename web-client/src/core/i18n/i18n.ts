// One typed `t()` over JSON messages. Plurals use the i18next v4 suffixes (`key_one`, `key_other`), values `{{name}}`.
import type admin from '../../../locales/en/admin.json';
import type app from '../../../locales/en/app.json';
import type common from '../../../locales/en/common.json';
import type visit from '../../../locales/en/visit.json';
import { Store } from '../store/emitter';
import { device } from '../store/keep';

type Keys<M> = keyof M & string;
type Base<K extends string> = K extends `${infer Name}_one` | `${infer Name}_other` ? Name : K;
export type MessageKey = Base<Keys<typeof common> | Keys<typeof visit> | Keys<typeof app> | Keys<typeof admin>>;
export type Values = Record<string, string | number>;
export type Area = 'common' | 'visit' | 'app' | 'admin';
export type T = (key: MessageKey, values?: Values) => string;

export const LANGUAGES = { en: 'English', es: 'Español' } as const;
export type Language = keyof typeof LANGUAGES;

type Messages = Record<string, string>;
export interface Translation { language: Language; t: T }

const PREFERENCE = 'medtech.language';

const load: Record<Language, Record<Area, () => Promise<{ default: Messages }>>> = {
  en: {
    common: () => import('../../../locales/en/common.json'),
    visit: () => import('../../../locales/en/visit.json'),
    app: () => import('../../../locales/en/app.json'),
    admin: () => import('../../../locales/en/admin.json'),
  },
  es: {
    common: () => import('../../../locales/es/common.json'),
    visit: () => import('../../../locales/es/visit.json'),
    app: () => import('../../../locales/es/app.json'),
    admin: () => import('../../../locales/es/admin.json'),
  },
};

export function translator(language: Language, messages: Messages): T {
  const plural = new Intl.PluralRules(language);
  const number = new Intl.NumberFormat(language);
  return (key, values) => {
    const count = values?.['count'];
    const form = typeof count === 'number' ? `${key}_${plural.select(count)}` : key;
    const text = messages[form] ?? messages[`${key}_other`] ?? messages[key] ?? key;
    if (!values) return text;
    return text.replace(/\{\{(\w+)\}\}/g, (whole, name: string) => {
      const value = values[name];
      return value === undefined ? whole : typeof value === 'number' ? number.format(value) : value;
    });
  };
}

export function preferredLanguage(asked: readonly string[], saved: string | null): Language {
  for (const tag of [saved, ...asked]) {
    const base = tag?.split('-')[0];
    if (base !== undefined && base in LANGUAGES) return base as Language;
  }
  return 'en';
}

export const translation = new Store<Translation | null>(null);
let areas: readonly Area[] = [];

export async function loadLanguage(wanted: readonly Area[], language?: Language): Promise<void> {
  areas = wanted;
  const chosen = language ?? preferredLanguage(navigator.languages, device.read<string>(PREFERENCE));
  if (language) device.write(PREFERENCE, language);
  const parts = await Promise.all(wanted.map((area) => load[chosen][area]()));
  const messages = Object.assign({}, ...parts.map((part) => part.default)) as Messages;
  if (typeof document !== 'undefined') document.documentElement.lang = chosen;
  translation.set({ language: chosen, t: translator(chosen, messages) });
}

export function switchLanguage(language: Language): Promise<void> {
  return loadLanguage(areas, language);
}
