import type { Centrifuge, Subscription } from 'centrifuge';
import { describe, expect, it } from 'vitest';
import { Live } from './live';

type Listener = (context: never) => void;
class Emitter {
  readonly listeners = new Map<string, Listener[]>();
  on(event: string, listener: Listener) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
    return this;
  }
  fire(event: string, context: unknown = {}) {
    for (const listener of this.listeners.get(event) ?? []) listener(context as never);
  }
}
class FakeSub extends Emitter {
  open = false;
  subscribe() { this.open = true; }
  unsubscribe() { this.open = false; }
}
class FakeClient extends Emitter {
  readonly subs = new Map<string, FakeSub>();
  newSubscription(channel: string) { const sub = new FakeSub(); this.subs.set(channel, sub); return sub as unknown as Subscription; }
  removeSubscription(sub: unknown) { for (const [name, known] of this.subs) if (known === sub) this.subs.delete(name); }
  token = 't';
  setToken(token: string) { this.token = token; }
  connect() { this.fire('connecting'); }
  disconnect() { this.fire('disconnected', { code: 0 }); }
}

function setup() {
  const client = new FakeClient();
  const live = new Live(() => client as unknown as Centrifuge, 'ws://x', 't', () => 1000);
  live.start();
  return { client, live };
}

describe('live channels', () => {
  it('asks for the whole state on joining and on an unrecovered gap, not after an exact recovery', () => {
    const { client, live } = setup();
    let gaps = 0;
    live.watch('encounter:1', { onData: () => undefined, onGap: () => { gaps += 1; } });
    const sub = client.subs.get('encounter:1');
    sub?.fire('subscribed', { wasRecovering: false, recovered: false });
    expect(gaps).toBe(1);
    sub?.fire('subscribed', { wasRecovering: true, recovered: true });
    expect(gaps).toBe(1);
    sub?.fire('subscribed', { wasRecovering: true, recovered: false });
    expect(gaps).toBe(2);
  });

  it('two watchers share one subscription; the last to leave closes it', async () => {
    const { client, live } = setup();
    const seen: string[] = [];
    const a = live.watch<string>('queue:1', { onData: (d) => seen.push(`a${d}`) });
    const sub = client.subs.get('queue:1');
    sub?.fire('subscribed', {});
    let late = 0;
    const b = live.watch<string>('queue:1', { onData: (d) => seen.push(`b${d}`), onGap: () => { late += 1; } });
    await Promise.resolve();
    expect(late).toBe(1);
    sub?.fire('publication', { data: '1' });
    expect(seen).toEqual(['a1', 'b1']);
    a();
    expect(sub?.open).toBe(true);
    b();
    expect(sub?.open).toBe(false);
    expect(client.subs.size).toBe(0);
  });

  it('tells reconnecting with its beginning, and an ended session apart from it', () => {
    const { client, live } = setup();
    expect(live.state.get()).toEqual({ at: 'connecting' });
    client.fire('connected');
    client.fire('connecting');
    client.fire('connecting');
    expect(live.state.get()).toEqual({ at: 'reconnecting', since: 1000 });
    client.fire('connected');
    client.fire('disconnected', { code: 3500 });
    expect(live.state.get()).toEqual({ at: 'expired' });
  });

  it('a first connection that fails is told as reconnecting; closing on purpose is no expiry', () => {
    const { client, live } = setup();
    client.fire('error');
    expect(live.state.get().at).toBe('reconnecting');
    live.stop();
    expect(live.state.get().at).not.toBe('expired');
  });

  it('goes on under a new token: the same channels, and nobody is told that the session ended', () => {
    const { client, live } = setup();
    live.watch('encounter:1', { onData: () => undefined });
    client.fire('connected');
    live.renew('u');
    expect([client.token, live.state.get().at, client.subs.has('encounter:1')]).toEqual(['u', 'reconnecting', true]);
    client.fire('connected');
    expect(live.state.get()).toEqual({ at: 'online' });
  });
});
