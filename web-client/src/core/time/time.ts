// Dates and spans in words. All functions take the moment as a value.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Unix milliseconds of an RFC 3339 text, or of a number that is one already. */
export function millis(at: string | number | null | undefined): number | null {
  if (at === null || at === undefined) return null;
  const value = typeof at === 'number' ? at : Date.parse(at);
  return Number.isFinite(value) ? value : null;
}

let chosen: { clock: 'auto' | '12' | '24'; zone: string | null } = { clock: 'auto', zone: null };

/** The clock and the zone that the person has chosen, for every time that is shown. */
export function setChosenTime(now: typeof chosen): void {
  chosen = now;
}

/** The language as it is written where the reader lives: `en` on a British device is `en-GB`. */
export function regional(language: string, asked: readonly string[] = globalThis.navigator?.languages ?? []): string {
  return asked.find((tag) => tag.split('-')[0] === language) ?? language;
}

/** A format of dates and times as the person likes them. A zone that is named goes before theirs. */
export function timeFormat(locale: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const clock: Intl.DateTimeFormatOptions = chosen.clock === 'auto' ? {} : { hourCycle: chosen.clock === '12' ? 'h12' : 'h23' };
  const zone: Intl.DateTimeFormatOptions = chosen.zone === null ? {} : { timeZone: chosen.zone };
  try {
    return new Intl.DateTimeFormat(regional(locale), { ...clock, ...zone, ...options });
  } catch {
    // A zone that this browser does not know.
    return new Intl.DateTimeFormat(regional(locale), { ...clock, ...options });
  }
}

export function clockTime(at: string | number, locale: string, zone?: string): string {
  return timeFormat(locale, { hour: 'numeric', minute: '2-digit', ...(zone ? { timeZone: zone } : {}) }).format(new Date(at));
}

/** With the zone it is in, for somebody who may be far from the clinic: "10:20 GMT". */
export function zonedTime(at: string | number, locale: string): string {
  return timeFormat(locale, { hour: 'numeric', minute: '2-digit', timeZoneName: 'short' }).format(new Date(at));
}

export function dayName(at: string | number, locale: string, zone?: string): string {
  return timeFormat(locale, { weekday: 'long', day: 'numeric', month: 'long', ...(zone ? { timeZone: zone } : {}) }).format(new Date(at));
}

/** A date of a record, without a time and perhaps without a day or a month: "12 Apr 1968", "Apr 1968", "1968". */
export function plainDate(date: string, locale: string): string {
  const found = /^(\d{4})(?:-(\d\d)(?:-(\d\d))?)?/.exec(date);
  if (!found) return date;
  const [, year, month, day] = found;
  const parts: Intl.DateTimeFormatOptions = { year: 'numeric', ...(month ? { month: 'short' } : {}), ...(day ? { day: 'numeric' } : {}) };
  return new Intl.DateTimeFormat(regional(locale), { ...parts, timeZone: 'UTC' }).format(Date.UTC(Number(year), Number(month ?? 1) - 1, Number(day ?? 1)));
}

/** Short age: "12 s", "4 min", "2 h", "3 d". */
export function age(ms: number, locale: string): string {
  const span = Math.max(0, ms);
  const [value, unit] = span < MINUTE ? [span / SECOND, 'second'] : span < HOUR ? [span / MINUTE, 'minute'] : span < DAY ? [span / HOUR, 'hour'] : [span / DAY, 'day'];
  return new Intl.NumberFormat(locale, { style: 'unit', unit, unitDisplay: 'short', maximumFractionDigits: 0, roundingMode: 'trunc' } as Intl.NumberFormatOptions).format(value);
}

/** "in 5 minutes", "3 minutes ago". */
export function relative(ms: number, locale: string): string {
  const format = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });
  const size = Math.abs(ms);
  if (size < HOUR) return format.format(Math.round(ms / MINUTE), 'minute');
  if (size < DAY) return format.format(Math.round(ms / HOUR), 'hour');
  return format.format(Math.round(ms / DAY), 'day');
}

/** Minutes and seconds of a running span: "04:09", with hours when there are any. */
export function stopwatch(ms: number): string {
  const total = Math.max(0, Math.floor(ms / SECOND));
  const two = (n: number) => String(n).padStart(2, '0');
  const hours = Math.floor(total / 3600);
  const rest = `${two(Math.floor((total % 3600) / 60))}:${two(total % 60)}`;
  return hours > 0 ? `${hours}:${rest}` : rest;
}

/** Whole years on a day; birth dates may be partial ("1980", "1980-05"). */
export function yearsOld(birth: string, today = new Date()): number | null {
  const [year, month = 1, day = 1] = birth.split('-').map(Number);
  if (year === undefined || !Number.isFinite(year)) return null;
  const before = today.getMonth() + 1 < month || (today.getMonth() + 1 === month && today.getDate() < day);
  return today.getFullYear() - year - (before ? 1 : 0);
}

/** The calendar day of a moment in a zone, as YYYY-MM-DD. */
export function isoDay(at: number, zone?: string): string {
  return new Intl.DateTimeFormat('en-CA', { year: 'numeric', month: '2-digit', day: '2-digit', ...(zone ? { timeZone: zone } : {}) }).format(new Date(at));
}
