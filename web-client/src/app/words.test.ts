import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import enAdmin from '../../locales/en/admin.json';
import enCommon from '../../locales/en/common.json';
import enApp from '../../locales/en/app.json';
import esAdmin from '../../locales/es/admin.json';
import esApp from '../../locales/es/app.json';
import esCommon from '../../locales/es/common.json';
import { ApiError } from '../core/api/problem';
import { translation, translator, type MessageKey } from '../core/i18n/i18n';
import { because, elementNames, kindName, noticeTitle, problemText, thingName, vitalName } from './words';

const en = translator('en', { ...enCommon, ...enApp, ...enAdmin });
const es = translator('es', { ...esCommon, ...esApp, ...esAdmin });

/** The reasons that the server's policy gives, read from where it gives them. */
function reasons(): string[] {
  const folder = new URL('../../../kernel/src/policy/', import.meta.url);
  const source = readdirSync(folder).filter((name) => name.endsWith('.rs') && !name.includes('test')).map((name) => readFileSync(new URL(name, folder), 'utf8')).join('\n');
  const given = [
    ...source.matchAll(/(?:step|Trace::new)\(\s*"[^"]+",\s*(?:true|false),\s*"([^"]+)"/g), ...source.matchAll(/Rule::(?:Allow|Deny)\("([^"]+)"\)/g),
    ...source.matchAll(/View::nothing\("([^"]+)"\)/g), ...source.matchAll(/why = "([^"]+)"/g),
  ];
  return [...new Set(given.map(([, reason]) => reason ?? ''))];
}

describe('what the server names, in words', () => {
  it('every reason of the policy has words in every language', () => {
    const all = reasons();
    expect(all.length).toBeGreaterThan(20);
    for (const t of [en, es]) expect(all.filter((reason) => because(t, reason) === t('because.other'))).toEqual([]);
  });
  it('a reason that is new to this client is told without its raw name', () => {
    expect(because(en, 'some.new_code')).toBe('Another rule of the clinic.');
  });
  it('a kind of record is a word; one that nobody knows is told with its name', () => {
    expect(kindName(en, 'AllergyIntolerance')).toBe('allergies');
    expect(kindName(es, 'MedicationRequest')).toBe('recetas');
    expect(kindName(en, 'Basic')).toBe('other entries (Basic)');
  });
  it('every element that a rule names has a word, each said once', () => {
    const table = readFileSync(new URL('../../../kernel/src/policy/table.rs', import.meta.url), 'utf8');
    const lists = [...table.matchAll(/elements: &\[([^\]]*)\]/g), ...table.matchAll(/HIDDEN[^=]*= \(\s*&\[([^\]]*)\]/g)].map(([, list]) => [...(list ?? '').matchAll(/"(\w+)"/g)].map(([, name]) => name ?? ''));
    expect(lists.length).toBeGreaterThan(2);
    for (const t of [en, es]) for (const name of lists.flat()) expect(t(`element.${name}` as MessageKey), name).not.toBe(`element.${name}`);
    expect(elementNames(en, ['deceasedBoolean', 'deceasedDateTime', 'photo'])).toBe('death, photo');
  });
  it('a thing of the trail is what it is, with the name it is looked for by', () => {
    expect(thingName(en, 'Observation/abc')).toEqual({ words: 'Entry in the record: measurements and results', id: 'Observation/abc' });
    expect(thingName(en, 'oauth_client:1')).toEqual({ words: 'Application', id: 'oauth_client:1' });
    expect(thingName(es, 'sign-in')).toEqual({ words: 'Entrada', id: '' });
    expect(thingName(en, 'something new')).toEqual({ words: 'something new', id: '' });
  });
  it('a vital sign is named in the language of the reader, by its code', () => {
    expect(vitalName(es, '8867-4', 'Heart rate')).toBe('Frecuencia cardíaca');
    expect(vitalName(es, '0-0', 'Grip strength')).toBe('Grip strength');
  });
  it('a notice is told in the language of the reader', () => {
    expect(noticeTitle(es, 'Critical laboratory result')).toBe('Resultado de laboratorio crítico');
    expect(noticeTitle(es, 'A title of tomorrow')).toBe('A title of tomorrow');
  });
});

describe('what went wrong', () => {
  const problem = (status: number, code: string) => new ApiError(status, code, 'A sentence of the server.');
  it('is said in the language of the reader, also for a code without words of its own', () => {
    translation.set({ language: 'es', t: es });
    expect(problemText(es, problem(409, 'identity.last_admin'))).toContain('administradora');
    expect(problemText(es, problem(409, 'tomorrow.code'))).toBe(esCommon['error.conflict']);
    expect(problemText(es, problem(422, 'tomorrow.code'))).toBe(esCommon['error.refused']);
    translation.set({ language: 'en', t: en });
    expect(problemText(en, problem(422, 'tomorrow.code'))).toBe('A sentence of the server.');
  });
  it('a fault of ours is never told by what it was', () => {
    expect(problemText(en, problem(500, 'db.away'))).toBe(enCommon['error.server']);
    expect(problemText(en, ApiError.network())).toBe(enCommon['error.network']);
  });
});
