import { describe, expect, it } from 'vitest';
import type { Keeper } from './keep';
import { Outbox } from '../chat/outbox';
import { keyOf, ownKeeper, sealed } from './sealed';

const memory = () => {
  const map = new Map<string, unknown>();
  const keep: Keeper = { read: <T>(k: string) => (map.get(k) as T | undefined) ?? null, write: (k, v) => void map.set(k, v), remove: (k) => void map.delete(k) };
  return { map, keep };
};
const mine = new Uint8Array(32).fill(1);

describe('sealed values', () => {
  it('are read by their owner alone, from their place alone, whole', () => {
    const { map, keep } = memory();
    const own = sealed(keep, mine);
    own.write('a', { text: 'Schwindel – seit Dienstag 🩺' });
    expect(JSON.stringify(map.get('a'))).not.toContain('Schwindel');
    expect(own.read('a')).toEqual({ text: 'Schwindel – seit Dienstag 🩺' });
    expect(sealed(keep, new Uint8Array(32).fill(2)).read('a')).toBeNull();
    map.set('b', map.get('a'));
    expect(own.read('b')).toBeNull();
    map.set('a', `${String(map.get('a')).slice(0, -6)}AAAAA=`);
    expect(own.read('a')).toBeNull();
    expect(own.read('none')).toBeNull();
  });
  it('takes over what was written in the clear, and seals it with the next change', () => {
    const { map, keep } = memory();
    map.set('a', { text: 'old' });
    const own = sealed(keep, mine);
    expect(own.read('a')).toEqual({ text: 'old' });
    own.write('a', { text: 'old' });
    expect(JSON.stringify(map.get('a'))).not.toContain('old');
  });
  it('a key is 32 bytes', () => expect(keyOf(btoa('x'.repeat(32)))).toHaveLength(32));
  it('messages that wait for the network lie sealed, and go out after a reload; without a key nothing is kept', async () => {
    const { map, keep } = memory();
    const key = btoa('k'.repeat(32));
    const options = (own: Keeper, send: () => Promise<never>) => ({ key: 'medtech.outbox.c1', keep: own, send, onSent: () => undefined, sleep: () => new Promise<void>(() => undefined) });
    const before = new Outbox(options(await ownKeeper(keep, async () => ({ key })), () => new Promise(() => undefined)));
    before.add({ text: 'Brustschmerz seit gestern' });
    const kept = JSON.stringify([...map]);
    expect(kept).toContain('medtech.outbox.c1');
    expect(kept).not.toMatch(/Brustschmerz/);
    const after = new Outbox(options(await ownKeeper(keep, async () => ({ key })), () => new Promise(() => undefined)));
    expect(after.pending.get().map((p) => p.body.text)).toEqual(['Brustschmerz seit gestern']);
    const none = memory();
    const offline = new Outbox(options(await ownKeeper(none.keep, () => Promise.reject(new Error('offline'))), () => new Promise(() => undefined)));
    offline.add({ text: 'Brustschmerz' });
    expect([offline.pending.get().length, none.map.size]).toEqual([1, 0]);
  });
});
