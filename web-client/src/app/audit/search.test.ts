import { expect, test } from 'vitest';
import { readSearch, startOfDay, toQuery } from './search';

test('an address is read, and what it cannot mean is passed over', () => {
  expect(readSearch({ actor: ' user:1 ', action: 'read', outcome: 'maybe', from: '2026-03-02', to: 'today', after: 7, colour: 'red' }))
    .toEqual({ actor: 'user:1', action: 'read', from: '2026-03-02', after: 7 });
  expect(readSearch({ after: '-1', target: '' })).toEqual({});
});

test('a session and the token’s way are asked for by what they can be', () => {
  const session = '0190A000-0000-7000-8000-0000000000aa';
  expect(readSearch({ session, issued: 'machine' })).toEqual({ session: session.toLowerCase(), issued: 'machine' });
  expect(readSearch({ session: 'mine', issued: 'post' })).toEqual({});
  expect(toQuery({ session, issued: 'machine' }, 'UTC', 50)).toBe(`limit=50&session=${session}&issued=machine`);
});

test('a day begins at the clinic’s midnight, also where the clocks change', () => {
  expect(new Date(startOfDay('2026-03-02', 'Europe/Berlin')).toISOString()).toBe('2026-03-01T23:00:00.000Z');
  expect(new Date(startOfDay('2026-03-30', 'Europe/Berlin')).toISOString()).toBe('2026-03-29T22:00:00.000Z');
  expect(new Date(startOfDay('2026-03-29', 'Europe/Berlin')).toISOString()).toBe('2026-03-28T23:00:00.000Z');
  expect(new Date(startOfDay('2026-11-01', 'America/New_York')).toISOString()).toBe('2026-11-01T04:00:00.000Z');
  expect(new Date(startOfDay('2026-06-01', 'Asia/Kathmandu')).toISOString()).toBe('2026-05-31T18:15:00.000Z');
});

test('the last day is included whole', () => {
  const query = new URLSearchParams(toQuery({ from: '2026-03-28', to: '2026-03-29', target: 'Patient/a b' }, 'Europe/Berlin', 50));
  expect(query.get('from')).toBe('2026-03-27T23:00:00.000Z');
  expect(query.get('to')).toBe('2026-03-29T22:00:00.000Z');
  expect(query.get('target')).toBe('Patient/a b');
  expect(query.get('limit')).toBe('50');
});
