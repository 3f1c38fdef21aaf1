// The server's names of things in words: kinds of records, reasons of decisions, notices, what went wrong. No raw name is shown.
import { asApiError } from '../core/api/problem';
import { translation, type MessageKey, type T } from '../core/i18n/i18n';

/** The words of a key that is made of a name of the server, or null where there are none. */
function known(t: T, key: string): string | null {
  const text = t(key as MessageKey);
  return text === key ? null : text;
}
const slug = (text: string) => text.toLowerCase().replace(/[^a-z0-9]+/g, '_').replace(/^_|_$/g, '');
export const capital = (text: string) => text.charAt(0).toLocaleUpperCase() + text.slice(1);

/** A FHIR type: `AllergyIntolerance` is "allergies". */
export function kindName(t: T, type: string): string {
  return known(t, `kind.${type}`) ?? t('kind.other', { type });
}

/** Elements of a resource, each word once: `deceasedBoolean` and `deceasedDateTime` are both "death". */
export function elementNames(t: T, elements: readonly string[]): string {
  return [...new Set(elements.map((name) => known(t, `element.${name}`) ?? name))].join(', ');
}

/** A vital sign by its LOINC code; others keep the name that the record has. */
export function vitalName(t: T, code: string, name: string): string {
  return known(t, `vital.${code}`) ?? name;
}

/** Why a step of a decision let somebody through, or did not. */
export function because(t: T, reason: string): string {
  return known(t, `because.${slug(reason)}`) ?? t('because.other');
}

/** Titles of notices and alerts are neutral and few; the server has them in English. */
export function noticeTitle(t: T, title: string): string {
  return known(t, `notices.${slug(title)}`) ?? title;
}

/** What an entry of the trail is about: what sort of thing, and the name it has in this house. */
export function thingName(t: T, target: string): { words: string; id: string } {
  const [, type, rest] = /^([A-Za-z_-]+)[:/](.*)$/.exec(target) ?? [];
  const words = /^[A-Z]/.test(type ?? '') ? t('thing.record', { kind: kindName(t, type ?? '') }) : known(t, `thing.${slug(type ?? target)}`);
  return words === null ? { words: target, id: '' } : { words, id: rest === undefined ? '' : target };
}

/** What went wrong. The server's own sentences are English: other languages have their own words for what people meet. */
export function problemText(t: T, error: unknown): string {
  const problem = asApiError(error);
  if (problem.status === 0) return t('error.network');
  const own = known(t, `problem.${problem.code}`);
  if (own !== null) return own;
  if (problem.status >= 500) return t('error.server');
  if (problem.detail !== '' && translation.get()?.language === 'en') return problem.detail;
  const byStatus: Record<number, MessageKey> = { 401: 'error.forbidden', 403: 'error.forbidden', 404: 'error.not_found', 409: 'error.conflict', 410: 'error.gone', 429: 'error.many' };
  return t(byStatus[problem.status] ?? 'error.refused');
}
