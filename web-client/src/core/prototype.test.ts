// What comes from outside cannot reach the prototypes of our own objects.
import { afterEach, describe, expect, it } from 'vitest';
import type { Centrifuge, Subscription } from 'centrifuge';
import { ApiClient } from './api/client';
import { messaging } from './api/endpoints';
import { ApiError } from './api/problem';
import type { Member, Message } from './api/types';
import { gapAfter, merge, moveCursor, withStates } from './chat/log';
import type { ConversationEvent } from './live/events';
import { Live } from './live/live';

/** As text, because a literal would mean something else: JSON.parse makes own keys of these names. */
const POISON = '{"__proto__":{"polluted":"yes","toString":"x"},"constructor":{"prototype":{"polluted":"yes"}},"prototype":{"polluted":"yes"}}';
const poisoned = <T>(more: object): T => ({ ...(JSON.parse(POISON) as object), ...more }) as T;
const text = (more: object) => `${POISON.slice(0, -1)},${JSON.stringify(more).slice(1)}`;

function untouched() {
  for (const fresh of [{}, [], () => undefined, new Map(), Object.create(Object.prototype) as object]) {
    expect((fresh as Record<string, unknown>)['polluted']).toBeUndefined();
  }
  expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
  expect(String({})).toBe('[object Object]');
}
afterEach(untouched);

const client = (body: string, status = 200) => new ApiClient({
  token: () => 't', sleep: async () => undefined,
  fetch: async () => new Response(body, { status, headers: { 'content-type': status < 400 ? 'application/json' : 'application/problem+json' } }),
});

describe('keys named like prototypes', () => {
  it('in answers of the API change nothing but the answer', async () => {
    const body = text({ id: 'c', title: 't', members: [JSON.parse(POISON)], last_seq: 1 });
    const got = await client(body).get<Record<string, unknown>>('/api/x');
    expect(got['polluted']).toBeUndefined();
    expect(Object.getPrototypeOf(got)).toBe(Object.prototype);
    for (const call of [() => client(body).post('/api/x'), () => client(body).put('/api/x', {}), () => messaging.conversation(client(body), '__proto__')]) {
      await call();
      untouched();
    }
  });

  it('in refusals are not taken for a code, a text or a status', async () => {
    const error = await client(text({ title: 't', status: 409, detail: 'd' }), 409).get('/api/x').catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ApiError);
    expect((error as ApiError).status).toBe(409);
    for (const code of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      const named = await client(JSON.stringify({ code, status: 400 }), 400).get('/api/x').catch((e: unknown) => e);
      expect((named as ApiError).code).toBe(code);
    }
  });

  it('in the log of a conversation and in live events change nothing but the message', () => {
    const message = (seq: number, id: string) => poisoned<Message>({ seq, id, client_id: id, conversation_id: 'c', sender: poisoned({ subject: '__proto__', name: 'constructor' }), at: '', body: poisoned({ text: '__proto__', file: { id: '__proto__', name: 'x', type: 'y', size: 1 } }) });
    const log = merge([message(1, '__proto__')], [message(2, 'constructor'), message(3, 'toString')]);
    expect(log.map((m) => m.id)).toEqual(['__proto__', 'constructor', 'toString']);
    expect(gapAfter(log)).toBeNull();
    const moved = moveCursor([poisoned<Member>({ subject: '__proto__', name: 'x', delivered_upto: 0, read_upto: 0 })], poisoned({ subject: '__proto__', read_upto: 2 }));
    expect(moved[0]?.read_upto).toBe(2);
    expect(withStates(log, new Map([['__proto__', 'harmful' as const]]))[0]?.body.file?.state).toBe('harmful');
    expect(withStates(log, new Map())).toBe(log);
  });

  it('as names of live channels and in what they carry are names and values', () => {
    const listeners = new Map<string, Map<string, (context: never) => void>>();
    const fake = {
      on: () => fake, connect: () => undefined, disconnect: () => undefined, removeSubscription: () => undefined,
      newSubscription: (channel: string) => {
        const own = new Map<string, (context: never) => void>();
        listeners.set(channel, own);
        const sub = { on: (event: string, listener: (context: never) => void) => { own.set(event, listener); return sub; }, subscribe: () => undefined, unsubscribe: () => undefined };
        return sub as unknown as Subscription;
      },
    };
    const live = new Live(() => fake as unknown as Centrifuge, 'ws://x', 't', () => 1000);
    live.start();
    for (const channel of ['__proto__', 'constructor', 'conversation:__proto__', 'toString']) {
      const seen: ConversationEvent[] = [];
      const leave = live.watch<ConversationEvent>(channel, { onData: (event) => seen.push(event) });
      listeners.get(channel)?.get('publication')?.({ data: JSON.parse(text({ kind: 'message.created', message: {} })) as unknown } as never);
      expect(seen).toHaveLength(1);
      expect((seen[0] as unknown as Record<string, unknown>)['polluted']).toBeUndefined();
      untouched();
      leave();
    }
  });
});
