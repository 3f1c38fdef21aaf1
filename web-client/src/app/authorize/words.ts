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
    const text = whatOf(t, word);
    const same = all.find((line) => line.text === text && line.words[0]?.level === word.level);
    if (same) same.words.push(word);
    else all.push({ text, words: [word] });
  }
  return all;
}
