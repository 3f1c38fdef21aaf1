// The small pure parts: time, devices, drafts, shortcuts, links.
import { describe, expect, it } from 'vitest';
import { fileId, fileSize } from './files/upload';
import { handle, setShortcuts } from './keys/keys';
import { levelOf, reported, troubleOf } from './media/devices';
import { Draft } from './notes/draft';
import { browserOf, describeDevice, takeLink } from './session/session';
import type { Keeper } from './store/keep';
import { age, isoDay, millis, plainDate, regional, stopwatch, yearsOld } from './time/time';

describe('time', () => {
  it('shortens an age to its largest unit, and never shows the future', () => {
    expect(age(12_900, 'en')).toBe('12 sec');
    expect(age(59 * 60_000, 'en')).toBe('59 min');
    expect(age(-5000, 'en')).toBe('0 sec');
  });
  it('a birthday counts from its day on; a birth date may be partial', () => {
    expect(yearsOld('1984-09-30', new Date(2026, 8, 29))).toBe(41);
    expect(yearsOld('1984-09-30', new Date(2026, 8, 30))).toBe(42);
    expect(yearsOld('1984', new Date(2026, 0, 1))).toBe(42);
    expect(yearsOld('unknown', new Date())).toBeNull();
  });
  it('a date of a record is that day in every zone, and as exact as it was written', () => {
    expect(plainDate('1968-04-12', 'es')).toBe('12 abr 1968');
    expect(plainDate('1968-04', 'es')).toBe('abr 1968');
    expect(plainDate('1968', 'es')).toBe('1968');
    expect(plainDate('long ago', 'es')).toBe('long ago');
  });
  it('a language is written as where the reader lives', () => {
    expect(regional('en', ['de-CH', 'en-GB', 'en'])).toBe('en-GB');
    expect(regional('es', ['en-GB'])).toBe('es');
  });
  it('a day is the day of its zone', () => {
    const at = Date.parse('2026-11-21T23:30:00Z');
    expect(isoDay(at, 'Europe/Madrid')).toBe('2026-11-22');
    expect(isoDay(at, 'America/New_York')).toBe('2026-11-21');
  });
  it('runs like a watch', () => {
    expect(stopwatch(249_000)).toBe('04:09');
    expect(stopwatch(3_723_000)).toBe('1:02:03');
    expect(millis('not a time')).toBeNull();
  });
});

describe('devices', () => {
  it('names what went wrong by the W3C error names', () => {
    expect(troubleOf(new DOMException('', 'NotAllowedError'))).toBe('denied');
    expect(troubleOf(new DOMException('', 'NotFoundError'))).toBe('missing');
    expect(troubleOf(new DOMException('', 'NotReadableError'))).toBe('busy');
    expect(reported('busy')).toBe('skipped');
    expect(reported('denied')).toBe('denied');
  });
  it('silence is zero, full scale is one', () => {
    expect(levelOf(new Float32Array(512))).toBe(0);
    expect(levelOf(new Float32Array(512).fill(1))).toBe(1);
  });
  it('knows the browser by what it calls itself, also where several names stand', () => {
    const edge = 'Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 Edg/140.0';
    const ios = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0 Mobile Safari/604.1';
    expect(browserOf(edge)).toBe('edge');
    expect(browserOf(ios)).toBe('ios');
    expect(describeDevice(ios)).toBe('Safari, iPhone');
  });
});

describe('a link in the address', () => {
  it('is read once and gone from the bar', () => {
    const shown: string[] = [];
    const history = { replaceState: (_s: unknown, _t: string, url: string) => shown.push(url) } as unknown as History;
    const where = (hash: string) => ({ hash, pathname: '/visit', search: '' }) as Location;
    expect(takeLink(where('#se%2Dcret'), history)).toBe('se-cret');
    expect(shown).toEqual(['/visit']);
    expect(takeLink(where(''), history)).toBeNull();
    expect(takeLink(where('#%E0%A4%A'), history)).toBe('%E0%A4%A');
  });
});

describe('a draft', () => {
  it('is written when the page goes away, and found again', () => {
    const map = new Map<string, unknown>();
    const keep: Keeper = { read: <T>(k: string) => (map.get(k) as T | undefined) ?? null, write: (k, v) => void map.set(k, v), remove: (k) => void map.delete(k) };
    const draft = new Draft('v1', 'u1', keep, () => 5000);
    draft.change('Cough for two weeks');
    draft.flush();
    expect(draft.saved.get()).toEqual({ at: 5000 });
    expect(new Draft('v1', 'u1', keep).text).toBe('Cough for two weeks');
    expect(new Draft('v2', 'u1', keep).text).toBe('');
  });
});

describe('shortcuts', () => {
  const press = (key: string, target: unknown = { tagName: 'DIV' }) => ({
    key, ctrlKey: false, metaKey: false, altKey: false, repeat: false, defaultPrevented: false, preventDefault: () => undefined, target: target as EventTarget,
  });
  it('rest in a text box, leave Enter to a focused button, and can be switched off', () => {
    let count = 0;
    const keys = { m: () => { count += 1; }, Enter: () => { count += 10; } };
    handle(keys, press('M'));
    expect(count).toBe(1);
    handle(keys, press('m', { tagName: 'TEXTAREA' }));
    handle(keys, press('Enter', { tagName: 'BUTTON' }));
    handle(keys, { ...press('m'), ctrlKey: true });
    expect(count).toBe(1);
    setShortcuts(false);
    handle(keys, press('m'));
    expect(count).toBe(1);
    setShortcuts(true);
  });
});

describe('files', () => {
  it('takes the id from any form of address', () => {
    expect(fileId('http://clinic.test/files/abc')).toBe('abc');
    expect(fileId('/files/abc/?x=1')).toBe('abc');
  });
  it('writes sizes in the reader\'s way', () => {
    expect(fileSize(2_500_000, 'en')).toBe('2.5 MB');
    expect(fileSize(999, 'en')).toBe('999 byte');
  });
});
