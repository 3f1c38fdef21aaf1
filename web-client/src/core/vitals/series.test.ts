import { describe, expect, it } from 'vitest';
import { add, freshness, fromChart, liveFirst, mergeChart, STALE_AFTER_MS, TRACE_LIMIT, TRACE_SPAN_MS, tracePath } from './series';

const reading = (at: number, value: number) => ({ code: '8867-4', name: 'Heart rate', unit: '/min', at, value });

describe('readings', () => {
  it('stand in the order of their time, however they arrive, and the same moment counts once', () => {
    const all = [reading(3000, 73), reading(1000, 71), reading(2000, 72), reading(2000, 75)].reduce(add, fromChart([]));
    expect(all[0]?.points).toEqual([{ at: 1000, value: 71 }, { at: 2000, value: 75 }, { at: 3000, value: 73 }]);
  });

  it('the trace is bounded', () => {
    let all = fromChart([]);
    for (let i = 0; i < TRACE_LIMIT + 50; i += 1) all = add(all, reading(i, i));
    expect(all[0]?.points).toHaveLength(TRACE_LIMIT);
    expect(all[0]?.points[0]?.at).toBe(50);
  });

  it('a value that is no number, or has no time, is left out', () => {
    expect(add([], reading(1, Number.NaN))).toEqual([]);
    expect(add([], { ...reading(1, 1), at: 'yesterday' })).toEqual([]);
  });

  it('a feed that stood still says so; a value from the chart only grows old', () => {
    const [live] = add([], reading(0, 70));
    const [charted] = fromChart([{ ...reading(0, 70), at: '1970-01-01T00:00:00Z' }]);
    if (!live || !charted) throw new Error('one series each');
    expect(freshness(live, STALE_AFTER_MS)).toBe('live');
    expect(freshness(live, STALE_AFTER_MS + 1)).toBe('stale');
    expect(freshness(charted, STALE_AFTER_MS + 1)).toBe('recent');
    expect(freshness(charted, 2 * 3_600_000)).toBe('old');
  });

  it('reading the chart again keeps the trace', () => {
    const live = add(add([], reading(1000, 70)), reading(2000, 71));
    const merged = mergeChart(live, [{ ...reading(0, 71), at: '1970-01-01T00:00:02Z' }]);
    expect(merged[0]?.points).toHaveLength(2);
  });

  it('the path stays inside its box', () => {
    expect(tracePath([{ at: 0, value: 1 }, { at: 10, value: 3 }], 100, 20)).toBe('M0.0 20.0L100.0 0.0');
    expect(tracePath([{ at: 0, value: 5 }, { at: 10, value: 5 }], 100, 20)).toBe('M0.0 10.0L100.0 10.0');
    expect(tracePath([{ at: 0, value: 5 }], 100, 20)).toBe('');
  });

  it('the path leaves out what is long past', () => {
    const now = [{ at: TRACE_SPAN_MS + 1, value: 1 }, { at: TRACE_SPAN_MS + 11, value: 3 }];
    expect(tracePath([{ at: 0, value: 90 }, ...now], 100, 20)).toBe('M0.0 20.0L100.0 0.0');
  });

  it('what is measured now stands first', () => {
    const charted = fromChart([{ ...reading(0, 70), code: 'a', at: '1970-01-01T00:00:00Z' }]);
    expect(liveFirst(add(charted, reading(1000, 71))).map((s) => s.code)).toEqual(['8867-4', 'a']);
  });
});
