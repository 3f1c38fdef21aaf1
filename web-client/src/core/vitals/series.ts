// Readings as they come: the last value of each kind, a short trace, and whether the feed is still alive.
import type { Vital } from '../api/types';
import { millis } from '../time/time';

export interface Point { at: number; value: number }
export interface Series { code: string; name: string; unit: string; points: readonly Point[]; live: boolean }
export type Freshness = 'live' | 'stale' | 'recent' | 'old';

/** The oldest points go first; a tile shows a few minutes only, the record keeps all. */
export const TRACE_LIMIT = 90;
/** A trace shows what is happening now: a value of last month would press it into one line. */
export const TRACE_SPAN_MS = 15 * 60_000;
export const STALE_AFTER_MS = 20_000;
const OLD_AFTER_MS = 60 * 60_000;

export interface Reading { code: string; name: string; value: number; unit: string; at: string | number }

export function fromChart(vitals: readonly Vital[]): readonly Series[] {
  return vitals.flatMap((v) => {
    const at = millis(v.at);
    const value = typeof v.value === 'number' ? v.value : Number.parseFloat(v.value ?? '');
    return at === null || !Number.isFinite(value) ? [] : [{ code: v.code, name: v.name, unit: v.unit ?? '', points: [{ at, value }], live: false }];
  });
}

/** A reading that is older than the newest one is put in its place; the same moment twice counts once. */
export function add(all: readonly Series[], reading: Reading): readonly Series[] {
  const at = millis(reading.at);
  if (at === null || !Number.isFinite(reading.value)) return all;
  const known = all.find((s) => s.code === reading.code);
  if (!known) {
    return [...all, { code: reading.code, name: reading.name, unit: reading.unit, points: [{ at, value: reading.value }], live: true }];
  }
  const rest = known.points.filter((p) => p.at !== at);
  const points = [...rest, { at, value: reading.value }].toSorted((a, b) => a.at - b.at).slice(-TRACE_LIMIT);
  const next: Series = { ...known, name: reading.name || known.name, unit: reading.unit || known.unit, points, live: true };
  return all.map((s) => (s === known ? next : s));
}

/** What is being measured now stands first; otherwise the order of the chart. */
export function liveFirst(all: readonly Series[]): readonly Series[] {
  return [...all.filter((s) => s.live), ...all.filter((s) => !s.live)];
}

/** A chart read again after a gap must not wipe the trace that is already there. */
export function mergeChart(all: readonly Series[], vitals: readonly Vital[]): readonly Series[] {
  let merged = all;
  for (const series of fromChart(vitals)) {
    const known = merged.find((s) => s.code === series.code);
    const point = series.points[0];
    if (!known) merged = [...merged, series];
    else if (point && !known.points.some((p) => p.at === point.at)) {
      const points = [...known.points, point].toSorted((a, b) => a.at - b.at).slice(-TRACE_LIMIT);
      merged = merged.map((s) => (s === known ? { ...known, points } : s));
    }
  }
  return merged;
}

export function freshness(series: Series, now: number): Freshness {
  const last = series.points.at(-1);
  if (!last) return 'old';
  const span = now - last.at;
  if (series.live) return span > STALE_AFTER_MS ? 'stale' : 'live';
  return span > OLD_AFTER_MS ? 'old' : 'recent';
}

/** The trace as an SVG path in a box. A flat line stands in the middle. */
export function tracePath(all: readonly Point[], width: number, height: number): string {
  const last = all.at(-1);
  const points = all.filter((p) => last !== undefined && p.at >= last.at - TRACE_SPAN_MS);
  const first = points[0];
  if (!first || !last || points.length < 2) return '';
  const values = points.map((p) => p.value);
  const low = Math.min(...values);
  const span = Math.max(...values) - low;
  const time = Math.max(1, last.at - first.at);
  return points.map((p, i) => {
    const x = ((p.at - first.at) / time) * width;
    const y = span === 0 ? height / 2 : height - ((p.value - low) / span) * height;
    return `${i === 0 ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
  }).join('');
}
