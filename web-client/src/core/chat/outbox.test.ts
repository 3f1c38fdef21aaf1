import { describe, expect, it } from 'vitest';
import { ApiError } from '../api/problem';
import type { Message } from '../api/types';
import type { Keeper } from '../store/keep';
import { Outbox, OUTBOX_LIMIT, waitingChanges, type Pending } from './outbox';

function memory(): Keeper {
  const map = new Map<string, string>();
  return {
    read: <T>(key: string) => { const text = map.get(key); return text === undefined ? null : (JSON.parse(text) as T); },
    write: (key, value) => void map.set(key, JSON.stringify(value)),
    remove: (key) => void map.delete(key),
  };
}

function box(answers: Array<'ok' | ApiError>, keep = memory()) {
  const sent: Array<[string, string | undefined]> = [];
  const waits: number[] = [];
  const done: string[] = [];
  let ids = 0;
  const outbox = new Outbox({
    key: 'k', keep,
    newId: () => `id-${(ids += 1)}`,
    sleep: async (ms) => { waits.push(ms); },
    onSent: (m) => done.push(m.client_id),
    send: async (clientId, body) => {
      sent.push([clientId, body.text]);
      const answer = answers.shift() ?? 'ok';
      if (answer !== 'ok') throw answer;
      return { client_id: clientId, seq: sent.length } as Message;
    },
  });
  return { outbox, sent, waits, done, keep };
}

const lost = () => ApiError.network();
const settle = async (outbox: Outbox) => { for (let i = 0; i < 50 && outbox.pending.get().some((p) => p.state === 'waiting'); i += 1) await Promise.resolve(); };

describe('Outbox', () => {
  it('sends in order, and each try of a message carries the same client_id', async () => {
    const { outbox, sent, waits } = box([lost(), lost()]);
    outbox.add({ text: 'one' });
    outbox.add({ text: 'two' });
    await settle(outbox);
    expect(sent.map(([id]) => id)).toEqual(['id-1', 'id-1', 'id-1', 'id-2']);
    expect(waits).toEqual([1000, 2000]);
    expect(outbox.pending.get()).toEqual([]);
  });

  it('waits as long as the server asks', async () => {
    const { outbox, waits } = box([new ApiError(429, 'too_many', '', undefined, 7000)]);
    outbox.add({ text: 'one' });
    await settle(outbox);
    expect(waits).toEqual([7000]);
  });

  it('a refused message fails in place, lets the next one pass, and can be retried', async () => {
    const { outbox, done } = box([new ApiError(403, 'forbidden', '')]);
    outbox.add({ text: 'refused' });
    outbox.add({ text: 'good' });
    await settle(outbox);
    expect(done).toEqual(['id-2']);
    expect(outbox.pending.get()).toMatchObject([{ clientId: 'id-1', state: 'failed' }]);
    outbox.retry('id-1');
    await settle(outbox);
    expect(done).toEqual(['id-2', 'id-1']);
  });

  it('unsent messages survive a reload with their ids', async () => {
    const keep = memory();
    const kept: Pending[] = [{ clientId: 'old-1', body: { text: 'kept' }, at: '2026-01-01T00:00:00Z', state: 'waiting' }];
    keep.write('k', kept);
    const { outbox, sent } = box([], keep);
    await outbox.run();
    expect(sent).toEqual([['old-1', 'kept']]);
    expect(keep.read('k')).toBeNull();
  });

  it('a message that came back by the live channel is not sent again', async () => {
    const keep = memory();
    keep.write('k', [{ clientId: 'x', body: {}, at: '', state: 'failed' }] satisfies Pending[]);
    const { outbox } = box([], keep);
    outbox.seen('x');
    expect(outbox.pending.get()).toEqual([]);
  });

  it('refuses more than its bound instead of growing', () => {
    const never = new Outbox({ key: 'n', keep: memory(), onSent: () => undefined, send: () => new Promise(() => undefined) });
    for (let i = 0; i < OUTBOX_LIMIT; i += 1) expect(never.add({ text: 'x' })).not.toBeNull();
    expect(never.add({ text: 'one too many' })).toBeNull();
    expect(waitingChanges.get()).toBe(OUTBOX_LIMIT);
    never.stop();
    expect(waitingChanges.get()).toBe(0);
  });
});
