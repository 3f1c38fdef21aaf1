// Who is using this tab. The token stays in sessionStorage: it ends with the tab and is never shared with another one.
import type { User } from '../api/types';
import { device, tab } from '../store/keep';
import { toBase64url } from '../webauthn/passkeys';

const USER = 'medtech.session';
const GUEST = 'medtech.guest';
const DEVICE = 'medtech.device';

export interface Session { token: string; expiresAt: string; user: User }
export interface GuestSession { link: string; token: string; visitId: string; subject: string }

export const userSession = {
  read: () => tab.read<Session>(USER),
  write: (session: Session) => tab.write(USER, session),
  clear: () => tab.remove(USER),
};

/** What was typed and not sent in this tab goes with the one who signs out. */
export function forgetWritten(area: Storage = sessionStorage): void {
  for (const key of Object.keys(area)) if (/^medtech\.(draft|outbox)\./.test(key)) area.removeItem(key);
}

export const guestSession = {
  read: () => tab.read<Partial<GuestSession>>(GUEST),
  write: (session: Partial<GuestSession>) => tab.write(GUEST, session),
  clear: () => tab.remove(GUEST),
};

/** Where somebody wanted to go before signing in; read once, and only a way inside the app. */
const WANTED = 'medtech.wanted';
export const wanted = {
  write: (path: string) => tab.write(WANTED, path),
  take: (): string | null => {
    const path = tab.read<string>(WANTED);
    tab.remove(WANTED);
    return typeof path === 'string' && path.startsWith('/app/') ? path : null;
  },
};

/** The address that an application believes to be the user's (`login_hint`): filled in on the sign-in page of this tab. */
const HINT = 'medtech.hint';
export const hint = {
  take: (hash: string): void => {
    const address = new URLSearchParams(hash.slice(1)).get('login_hint');
    if (address !== null) tab.write(HINT, address);
  },
  read: (): string => {
    const address = tab.read<string>(HINT);
    return typeof address === 'string' ? address.slice(0, 254) : '';
  },
  clear: () => tab.remove(HINT),
};

/** What this browser keeps of links that it asked for: they open nowhere else. */
const kept = (place: string) => ({
  /** One for all links that are asked for until one of them opens. */
  keep: (): string => {
    const known = device.read<string>(place);
    if (known) return known;
    const made = toBase64url(crypto.getRandomValues(new Uint8Array(32)).buffer);
    device.write(place, made);
    return made;
  },
  read: () => device.read<string>(place),
  clear: () => device.remove(place),
});
/** Of sign-in links. */
export const linkSecret = kept('medtech.link');
/** Of links that prove a new e-mail address. */
export const addressSecret = kept('medtech.address');

/** What tells this browser from others at the door: whoever signed in here before is not kept out by a stranger's guesses
 * elsewhere. It opens nothing, and stays when somebody signs out. */
const BROWSER = 'medtech.browser';
export function browserSecret(): string {
  const known = device.read<string>(BROWSER);
  if (typeof known === 'string' && known.length === 43) return known;
  const made = toBase64url(crypto.getRandomValues(new Uint8Array(32)).buffer);
  device.write(BROWSER, made);
  return made;
}

/** This device's own id: lets the server tell a reload from a second device on the same link. */
export function deviceIdentity(): { id: string; name: string } {
  let id = device.read<string>(DEVICE);
  if (id === null) {
    id = crypto.randomUUID();
    device.write(DEVICE, id);
  }
  return { id, name: describeDevice(navigator.userAgent) };
}

export type Browser = 'chrome' | 'firefox' | 'safari' | 'ios' | 'edge' | 'samsung' | 'other';

export function browserOf(agent: string): Browser {
  if (/iPhone|iPad|iPod/.test(agent)) return 'ios';
  if (/SamsungBrowser/.test(agent)) return 'samsung';
  if (/Edg\//.test(agent)) return 'edge';
  if (/Firefox\//.test(agent)) return 'firefox';
  if (/Chrome\//.test(agent)) return 'chrome';
  if (/Safari\//.test(agent)) return 'safari';
  return 'other';
}

export function describeDevice(agent: string): string {
  const system = /iPhone/.test(agent) ? 'iPhone' : /iPad/.test(agent) ? 'iPad' : /Android/.test(agent) ? 'Android'
    : /Windows/.test(agent) ? 'Windows' : /Mac OS/.test(agent) ? 'Mac' : /Linux/.test(agent) ? 'Linux' : '';
  const names: Record<Browser, string> = {
    chrome: 'Chrome', firefox: 'Firefox', safari: 'Safari', ios: 'Safari', edge: 'Edge', samsung: 'Samsung Internet', other: 'Browser',
  };
  return [names[browserOf(agent)], system].filter(Boolean).join(', ');
}

/** Reads a secret from the address (`#LINK`) and takes it out of the address bar and the history at once. */
export function takeLink(where: Location = location, history: History = window.history): string | null {
  const raw = where.hash.slice(1);
  if (raw === '') return null;
  history.replaceState(null, '', where.pathname + where.search);
  try {
    return decodeURIComponent(raw);
  } catch {
    return raw;
  }
}
