// Scopes in plain words: what an application will be able to do, said to the person who decides.
import type { MessageKey, T } from '../../core/i18n/i18n';
import type { ScopeWord } from '../../core/api/types';

const NAMED: Record<string, MessageKey> = {
  openid: 'consent.openid', profile: 'consent.profile', fhirUser: 'consent.profile', email: 'consent.email', launch: 'consent.launch',
  'launch/patient': 'consent.launch', 'launch/encounter': 'consent.launch_encounter', offline_access: 'consent.offline', online_access: 'consent.online',
};

const TYPES: Record<string, MessageKey> = {
  '*': 'consent.type_all', AllergyIntolerance: 'consent.type_allergies', Appointment: 'consent.type_appointments', CarePlan: 'consent.type_plans',
  Condition: 'consent.type_conditions', DiagnosticReport: 'consent.type_reports', DocumentReference: 'consent.type_documents', Encounter: 'consent.type_encounters',
  Immunization: 'consent.type_immunizations', MedicationRequest: 'consent.type_medications', Observation: 'consent.type_observations',
  Patient: 'consent.type_patient', Practitioner: 'consent.type_practitioners', Procedure: 'consent.type_procedures',
};

export function whatOf(t: T, word: ScopeWord): string {
  if (word.level === undefined) return t(NAMED[word.scope] ?? 'consent.other', { scope: word.scope });
  const letters = word.letters ?? '';
  const sees = /[rs]/.test(letters);
  const changes = /[cud]/.test(letters);
  const key = TYPES[word.type ?? '*'];
  const what = key === undefined ? t('consent.type_unknown', { type: word.type ?? '' }) : t(key);
  return t(sees && changes ? 'consent.see_change' : changes ? 'consent.change' : 'consent.see', { what });
}

const NARROWED: Record<string, MessageKey> = {
  category: 'consent.only_category', code: 'consent.only_code', status: 'consent.only_status', date: 'consent.only_date', 'clinical-status': 'consent.only_status',
};
/** Categories that people know by a word. */
const CATEGORIES: Record<string, MessageKey> = {
  laboratory: 'consent.category_laboratory', 'vital-signs': 'consent.category_vitals', imaging: 'consent.category_imaging', survey: 'consent.category_survey',
  'social-history': 'consent.category_social', procedure: 'consent.category_procedure', activity: 'consent.category_activity',
};

/** What narrows a clinical scope, in words: one for each condition, all of which must hold. */
export function onlyOf(t: T, word: ScopeWord): string[] {
  return (word.only ?? []).map(({ name, value }) => {
    const words = value.split(',').map((one) => {
      const code = one.split('|').at(-1) ?? one;
      const known = name === 'category' ? CATEGORIES[code] : undefined;
      return known ? t(known) : code === '' ? one : code;
    });
    const key = NARROWED[name];
    const said = words.join(', ');
    return key === undefined ? t('consent.only_else', { name, value: said }) : t(key, { value: said });
  });
}

/** A scope that stands alone, as the list of permissions has it. */
export function wordOf(scope: string): ScopeWord {
  const found = /^(patient|user)\/([A-Za-z]+|\*)\.([a-z]+)(?:\?(.*))?$/.exec(scope);
  if (found === null) return { scope, fixed: false };
  const [, level, type, letters, query] = found;
  const only = query === undefined ? [] : [...new URLSearchParams(query)].map(([name, value]) => ({ name, value }));
  return { scope, fixed: false, level: level as 'patient' | 'user', type: type ?? '*', letters: letters ?? '', only };
}

/** How long, in the words of the largest unit that is whole. */
export function howLong(t: T, seconds: number): string {
  const [unit, size] = ([['days', 86_400], ['hours', 3600], ['minutes', 60]] as const).find(([, s]) => seconds >= s) ?? (['minutes', 60] as const);
  return t(`consent.${unit}`, { count: Math.round(seconds / size) });
}

/** Of whom: a second line under clinical scopes. */
export function ofWhom(t: T, word: ScopeWord, patient: string | null): string | null {
  if (word.level === undefined) return null;
  if (word.level === 'user') return t('consent.of_all');
  return patient === null ? t('consent.of_patient') : t('consent.of_named', { name: patient });
}

/** Scopes that say the same are one line; all of them are ticked together. */
export function lines(t: T, words: readonly ScopeWord[]): Array<{ text: string; words: ScopeWord[] }> {
  const all: Array<{ text: string; words: ScopeWord[] }> = [];
  for (const word of words) {
    const only = onlyOf(t, word);
    const text = only.length === 0 ? whatOf(t, word) : t('consent.only', { what: whatOf(t, word), only: only.join('; ') });
    const same = all.find((line) => line.text === text && line.words[0]?.level === word.level);
    if (same) same.words.push(word);
    else all.push({ text, words: [word] });
  }
  return all;
}
