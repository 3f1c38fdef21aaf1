import { describe, expect, it } from 'vitest';
import enAdmin from '../../../locales/en/admin.json';
import enApp from '../../../locales/en/app.json';
import enCommon from '../../../locales/en/common.json';
import enVisit from '../../../locales/en/visit.json';
import esAdmin from '../../../locales/es/admin.json';
import esApp from '../../../locales/es/app.json';
import esCommon from '../../../locales/es/common.json';
import esVisit from '../../../locales/es/visit.json';
import { preferredLanguage, translator } from './i18n';

const pairs: Array<[string, Record<string, string>, Record<string, string>]> = [
  ['common', enCommon, esCommon], ['visit', enVisit, esVisit], ['app', enApp, esApp], ['admin', enAdmin, esAdmin],
];

describe('messages', () => {
  it.each(pairs)('%s: every language has the same keys and the same values to fill in', (_area, en, es) => {
    expect(Object.keys(es).toSorted()).toEqual(Object.keys(en).toSorted());
    for (const [key, text] of Object.entries(en)) {
      const slots = (s: string) => [...s.matchAll(/\{\{(\w+)\}\}/g)].map((m) => m[1]).toSorted();
      expect(slots(es[key] ?? ''), key).toEqual(slots(text));
    }
  });

  it.each(pairs)('%s: nothing was left in English', (area, en, es) => {
    const same = Object.keys(en).filter((key) => es[key] === en[key] && /[a-z]{4,} [a-z]{3,}/i.test(en[key] ?? ''));
    expect(same, area).toEqual([]);
  });

  it('chooses the plural form of the language and formats numbers', () => {
    const t = translator('en', enApp);
    expect(t('queue.count', { count: 1 })).toBe('1 patient is waiting');
    expect(t('queue.count', { count: 1200 })).toBe('1,200 patients are waiting');
  });

  it('leaves a slot without a value visible instead of printing "undefined"', () => {
    expect(translator('en', enCommon)('error.reference', {})).toBe('Reference: {{id}}');
  });

  it('the saved choice wins, then the first known language, then English', () => {
    expect(preferredLanguage(['fr-FR', 'es-MX'], null)).toBe('es');
    expect(preferredLanguage(['es'], 'en')).toBe('en');
    expect(preferredLanguage(['fr'], 'xx')).toBe('en');
  });
});
