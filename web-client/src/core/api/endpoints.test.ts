// Whatever stands in an id, the address stays the one that is meant: our origin, the same segments, no query but ours.
import { expect, it } from 'vitest';
import * as own from '../../app/account/api';
import * as admin from '../../app/admin/api';
import type { ApiClient } from './client';
import * as endpoints from './endpoints';
import * as fhir from './fhir';

const HOSTILE = [
  '../../x', '../x', '..%2f..%2fx', '%2e%2e%2fx', '%2e%2e', '%2f', '/', '//evil.invalid/x', '\\\\evil.invalid\\x', '..\\x', 'https://evil.invalid/', 'javascript:alert(1)', 'data:text/html,x',
  '?a=b#c', '#c', '&a=b', 'a=b;c', 'x?_count=1000', '@evil.invalid', ':80', ' ', '\t\n', '\r\nhost: evil.invalid', '\0', '%00', '%', '%zz', 'ä\u202e…', '😀', '<script>', '"\'`', 'a+b c', '*', '{id}', '__proto__',
];

/** Places that hold no text of others: the compiler keeps them to numbers or to words of our own, and `audit.page` gets what URLSearchParams wrote. */
const OURS: Record<string, readonly number[]> = {
  'endpoints.visits.act': [2], 'endpoints.messaging.page': [2, 3], 'endpoints.glass.list': [1], 'endpoints.audit.page': [1],
  'own.account.log': [1], 'own.account.logFile': [1],
  'admin.people.act': [2], 'admin.clinics.one': [1], 'admin.clinics.edit': [1], 'admin.clinics.act': [1, 2], 'admin.clinics.delete': [1],
  'admin.clinics.addDomain': [1], 'admin.clinics.removeDomain': [1],
};

type Call = (api: ApiClient, ...args: unknown[]) => unknown;
const PLAIN = 'plain';
/** More than any call has; what a call does not read changes nothing. */
const ARGUMENTS = 4;

/** The one address that a call asks for with these arguments. */
function asked(call: Call, args: unknown[]): string {
  const paths: string[] = [];
  const api = new Proxy({}, { get: () => (path: string) => { paths.push(path); return Promise.resolve({}); } });
  void call(api as ApiClient, ...args);
  expect(paths).toHaveLength(1);
  return paths[0] ?? '';
}

/** Where nothing must be asked for. */
async function refused(call: Call, args: unknown[]): Promise<void> {
  const api = new Proxy({}, { get: () => (path: string) => { throw new Error(`asked for ${path}`); } });
  await call(api as ApiClient, ...args);
}

const calls = Object.entries({ endpoints, own, admin, fhir }).flatMap(([file, groups]) => Object.entries(groups as Record<string, unknown>).flatMap(([group, all]) =>
  Object.entries(all as Record<string, unknown>).flatMap(([name, call]): Array<[string, Call]> => (typeof call === 'function' ? [[`${file}.${group}.${name}`, call as Call]] : []))));

/** The same address, but for the hostile text wherever `plain` stood. */
function expectSame(address: string, usual: string, hostile: string) {
  const [is, was] = [address, usual].map((path) => new URL(path, 'https://clinic.test')) as [URL, URL];
  expect([is.origin, is.username, is.hash]).toEqual(['https://clinic.test', '', '']);
  const swap = (text: string) => (text === PLAIN ? hostile : text);
  expect(is.pathname.split('/').map(decodeURIComponent)).toEqual(was.pathname.split('/').map(swap));
  expect([...is.searchParams]).toEqual([...was.searchParams].map(([name, value]) => [name, swap(value)]));
}

it('hostile ids stay one segment or one value of every address that the page builds', async () => {
  expect(calls.length).toBeGreaterThan(90);
  let held = 0;
  for (const [name, call] of calls) {
    for (let at = 1; at <= ARGUMENTS; at += 1) {
      if (OURS[name]?.includes(at)) continue;
      // Others stay another word, so that two places do not stand for each other.
      const args = (text: string) => Array.from({ length: ARGUMENTS }, (_, i) => {
        const one = i + 1 === at ? text : 'other';
        return name === 'endpoints.identity.names' ? [one] : one;
      });
      const usual = asked(call, args(PLAIN));
      for (const hostile of HOSTILE) expectSame(asked(call, args(hostile)), usual, hostile);
      // No escaping keeps these two in a path.
      const inPath = new URL(usual, 'https://clinic.test').pathname.split('/').includes(PLAIN);
      for (const step of ['.', '..']) {
        if (inPath) await expect(refused(call, args(step)), name).rejects.toThrow('not an id');
        else expectSame(asked(call, args(step)), usual, step);
      }
      if (usual.includes(PLAIN)) held += 1;
    }
  }
  // The places that an id or a text of others has in an address.
  expect(held).toBeGreaterThan(45);
  const known = new Set(calls.map(([name]) => name));
  expect(Object.keys(OURS).filter((name) => !known.has(name))).toEqual([]);
});
