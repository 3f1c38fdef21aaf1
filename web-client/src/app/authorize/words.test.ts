import { describe, expect, it } from 'vitest';
import app from '../../../locales/en/app.json';
import { translator } from '../../core/i18n/i18n';
import { howLong, lines, ofWhom, onlyOf, whatOf, wordOf } from './words';

const t = translator('en', app);
const clinical = (level: 'patient' | 'user', type: string, letters: string) => ({ scope: `${level}/${type}.${letters}`, fixed: false, level, type, letters });

describe('scopes in words', () => {
  it('tells seeing from changing', () => {
    expect(whatOf(t, clinical('patient', 'Observation', 'rs'))).toBe('See measurements and results');
    expect(whatOf(t, clinical('patient', 'Condition', 'cu'))).toBe('Add or change diagnoses');
    expect(whatOf(t, clinical('user', '*', 'cruds'))).toBe('See, add or change the whole record');
    expect(whatOf(t, clinical('user', 'Slot', 'r'))).toBe('See records of the kind “Slot”');
  });

  it('says of whom', () => {
    expect(ofWhom(t, clinical('patient', 'Patient', 'r'), 'Ada')).toBe('Of Ada');
    expect(ofWhom(t, clinical('user', 'Patient', 'r'), 'Ada')).toMatch(/everyone/i);
    expect(ofWhom(t, { scope: 'openid', fixed: true }, 'Ada')).toBeNull();
  });

  it('says what a query leaves, and how long it is kept', () => {
    const lab = wordOf('patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory&status=final');
    expect(onlyOf(t, lab)).toEqual(['laboratory results', 'with the status final']);
    expect(lines(t, [lab])[0]?.text).toBe('See measurements and results, only: laboratory results; with the status final');
    expect(onlyOf(t, wordOf('patient/Observation.rs?category=vital-signs,urn:own|mine&_tag=a%26b'))).toEqual(['vital signs, mine', '_tag is a&b']);
    expect(lines(t, [lab, wordOf('patient/Observation.rs')])).toHaveLength(2);
    expect(wordOf('offline_access')).toEqual({ scope: 'offline_access', fixed: false });
    expect([howLong(t, 3600), howLong(t, 12 * 3600), howLong(t, 365 * 86_400), howLong(t, 60)]).toEqual(['1 hour', '12 hours', '365 days', '1 minute']);
  });

  it('has words for a name it does not know, and one line for what says the same', () => {
    expect(whatOf(t, { scope: 'new/thing', fixed: false })).toContain('new/thing');
    expect(lines(t, [{ scope: 'profile', fixed: false }, { scope: 'fhirUser', fixed: false }, { scope: 'email', fixed: false }])).toHaveLength(2);
  });
});
