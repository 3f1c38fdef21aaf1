// What is asked of the trail, as it stands in the address: a link shows the same to the next person, and Back goes back.

export interface AuditSearch {
  actor?: string;
  target?: string;
  action?: string;
  outcome?: string;
  /** What was done in one session. */
  session?: string;
  /** `machine`: with tokens that were taken at the machine. */
  issued?: string;
  /** Days of the clinic, YYYY-MM-DD, both included. */
  from?: string;
  to?: string;
  /** Entries older than this number. */
  after?: number;
}

export const ACTIONS = ['read', 'create', 'update', 'delete', 'execute'] as const;
export const OUTCOMES = ['success', 'denied'] as const;
export const ISSUED = ['machine'] as const;
const SESSION = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i;
const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** What an address says; what cannot be understood is passed over. */
export function readSearch(raw: Record<string, unknown>): AuditSearch {
  const text = (name: string): string => (typeof raw[name] === 'string' || typeof raw[name] === 'number' ? String(raw[name]).trim() : '');
  const search: AuditSearch = {};
  for (const name of ['actor', 'target'] as const) if (text(name) !== '') search[name] = text(name).slice(0, 200);
  for (const name of ['from', 'to'] as const) if (DAY.test(text(name))) search[name] = text(name);
  if ((ACTIONS as readonly string[]).includes(text('action'))) search.action = text('action');
  if ((OUTCOMES as readonly string[]).includes(text('outcome'))) search.outcome = text('outcome');
  if ((ISSUED as readonly string[]).includes(text('issued'))) search.issued = text('issued');
  if (SESSION.test(text('session'))) search.session = text('session').toLowerCase();
  const after = Number(text('after'));
  if (Number.isSafeInteger(after) && after > 0) search.after = after;
  return search;
}

/** The moment a day begins in a time zone, in Unix milliseconds. */
export function startOfDay(day: string, zone: string): number {
  const utc = Date.parse(`${day}T00:00:00Z`);
  // Twice, because the offset may differ between the guess and the answer where the clocks change.
  const once = utc - offset(utc, zone);
  return utc - offset(once, zone);
}

function offset(at: number, zone: string): number {
  const parts = new Intl.DateTimeFormat('en-CA', {
    timeZone: zone, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit',
  }).formatToParts(new Date(at));
  const get = (type: string) => Number(parts.find((p) => p.type === type)?.value ?? 0);
  return Date.UTC(get('year'), get('month') - 1, get('day'), get('hour'), get('minute'), get('second')) - Math.floor(at / 1000) * 1000;
}

function nextDay(day: string): string {
  return new Date(Date.parse(`${day}T00:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
}

/** The query of the request. */
export function toQuery(search: AuditSearch, zone: string, limit: number): string {
  const query = new URLSearchParams({ limit: String(limit) });
  for (const name of ['actor', 'target', 'action', 'outcome', 'session', 'issued'] as const) {
    const value = search[name];
    if (value !== undefined) query.set(name, value);
  }
  if (search.from !== undefined) query.set('from', new Date(startOfDay(search.from, zone)).toISOString());
  if (search.to !== undefined) query.set('to', new Date(startOfDay(nextDay(search.to), zone)).toISOString());
  if (search.after !== undefined) query.set('after', String(search.after));
  return query.toString();
}

/** The same question from its newest answer on. */
export function newest(search: AuditSearch): AuditSearch {
  const first = { ...search };
  delete first.after;
  return first;
}
