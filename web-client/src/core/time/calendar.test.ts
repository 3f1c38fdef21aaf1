import { describe, expect, it } from 'vitest';
import { clockTime, setChosenTime } from './time';
import { calendarEntry } from './calendar';

const entry = { id: 'v1', title: 'Visit; video, 1', text: 'Open:', url: `https://clinic.test/visit#${'x'.repeat(90)}`, start: Date.UTC(2026, 10, 22, 1, 30), minutes: 30, stamp: Date.UTC(2026, 10, 21), reminder: 10 };

describe('a calendar entry', () => {
  it('has start, length and reminder as RFC 5545 writes them', () => {
    const text = calendarEntry(entry);
    for (const line of ['DTSTART:20261122T013000Z', 'DURATION:PT30M', 'TRIGGER:-PT10M', 'DTSTAMP:20261121T000000Z']) expect(text).toContain(`${line}\r\n`);
  });

  it('escapes what has a meaning of its own', () => {
    expect(calendarEntry(entry)).toContain('SUMMARY:Visit\\; video\\, 1\r\n');
  });

  it('folds lines at 75 octets, also with letters of more than one, and loses nothing', () => {
    const text = calendarEntry({ ...entry, title: 'ñ'.repeat(100) });
    for (const line of text.split('\r\n')) expect(new TextEncoder().encode(line).length).toBeLessThanOrEqual(75);
    const whole = text.replace(/\r\n /g, '');
    expect(whole).toContain(`SUMMARY:${'ñ'.repeat(100)}`);
    expect(whole).toContain(`URL:${entry.url}\r\n`);
  });
});

describe('the clock that somebody has chosen', () => {
  const at = Date.UTC(2026, 10, 22, 13, 5);
  const plain = (text: string) => text.replace(/\s/g, ' ');
  it('is the one that times are shown by, in every language, in their own zone', () => {
    try {
      setChosenTime({ clock: '24', zone: 'Asia/Tokyo' });
      expect(plain(clockTime(at, 'en'))).toBe('22:05');
      setChosenTime({ clock: '12', zone: 'Asia/Tokyo' });
      expect(plain(clockTime(at, 'en'))).toBe('10:05 PM');
      expect(plain(clockTime(at, 'es'))).toMatch(/^10:05 p\. ?m\.$/);
      expect(plain(clockTime(at, 'en', 'UTC'))).toBe('1:05 PM');
      setChosenTime({ clock: '24', zone: 'Nowhere/Here' });
      expect(clockTime(at, 'en', 'UTC')).toBe('13:05');
    } finally {
      setChosenTime({ clock: 'auto', zone: null });
    }
  });
});
