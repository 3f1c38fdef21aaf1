import { describe, expect, it } from 'vitest';
import { Idle } from './idle';

function idle() {
  const at = { now: 1_000_000 };
  const seen = { pings: 0, ends: 0 };
  const held = { now: false };
  const clock = new Idle({ limitMs: 900_000, warnMs: 60_000, now: () => at.now, held: () => held.now, ping: () => { seen.pings += 1; }, end: () => { seen.ends += 1; } });
  const pass = (ms: number) => { at.now += ms; clock.tick(); };
  return { clock, seen, pass, at, held };
}

describe('Idle', () => {
  it('warns a minute before the end, and ends once', () => {
    const { clock, seen, pass } = idle();
    pass(839_999);
    expect(clock.left.get()).toBeNull();
    pass(1);
    expect(clock.left.get()).toBe(60_000);
    pass(59_000);
    expect(clock.left.get()).toBe(1000);
    pass(1000);
    pass(1000);
    expect(seen.ends).toBe(1);
  });

  it('begins again with every movement, and tells the server once a minute at most', () => {
    const { clock, seen, pass } = idle();
    for (let i = 0; i < 600; i += 1) { pass(10_000); clock.moved(); }
    expect(clock.left.get()).toBeNull();
    expect(seen).toEqual({ pings: 100, ends: 0 });
  });

  it('a warning is answered by its button alone', () => {
    const { clock, seen, pass } = idle();
    pass(870_000);
    clock.moved();
    expect(clock.left.get()).toBe(30_000);
    clock.stay();
    pass(830_000);
    expect([clock.left.get(), seen.ends, seen.pings]).toEqual([null, 0, 1]);
  });

  it('a sleep longer than the limit ends it, whatever moves first', () => {
    const { clock, seen, at } = idle();
    at.now += 3_600_000;
    clock.moved();
    clock.stay();
    clock.tick();
    expect([seen.ends, seen.pings]).toEqual([1, 0]);
  });

  it('a call holds it open without hands', () => {
    const { clock, seen, pass, held } = idle();
    held.now = true;
    for (let i = 0; i < 120; i += 1) pass(30_000);
    expect(seen.ends).toBe(0);
    held.now = false;
    pass(899_999);
    expect(clock.left.get()).toBe(1);
  });
});
