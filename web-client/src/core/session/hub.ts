// The signed-in tab: API, live socket and who is here. Signing in again keeps everything that is on the screen.
import { ApiClient } from '../api/client';
import { identity } from '../api/endpoints';
import type { Role, SignedIn, User } from '../api/types';
import { openLive, type Live } from '../live/live';
import { Store } from '../store/emitter';
import { userSession } from './session';

export class Hub {
  readonly api = new ApiClient({ token: () => this.token(), onUnauthorized: () => this.expired.set(this.user.get() !== null) });
  readonly user = new Store<User | null>(userSession.read()?.user ?? null);
  readonly live = new Store<Live | null>(null);
  /** The session ended while somebody works: sign in again in place, keep what is on the screen. */
  readonly expired = new Store(false);
  #opening = false;

  token = (): string | null => userSession.read()?.token ?? null;

  async signIn(email: string, password: string): Promise<void> {
    this.#enter(await identity.signIn(new ApiClient(), email, password));
  }

  async exchange(link: string): Promise<void> {
    this.#enter(await identity.exchange(new ApiClient(), link));
  }

  async signOut(): Promise<void> {
    await identity.signOut(this.api).catch(() => undefined);
    this.live.get()?.stop();
    this.live.set(null);
    userSession.clear();
    this.expired.set(false);
    this.user.set(null);
  }

  /** Opens the live socket where it is not open yet. */
  async connect(): Promise<void> {
    const token = this.token();
    if (this.#opening || this.live.get() || token === null) return;
    this.#opening = true;
    try {
      const live = await openLive(token);
      live.state.subscribe(() => { if (live.state.get().at === 'expired' && this.live.get() === live) this.expired.set(true); });
      this.live.set(live);
    } finally {
      this.#opening = false;
    }
  }

  #enter(session: SignedIn): void {
    userSession.write({ token: session.access_token, expiresAt: session.expires_at, user: session.user });
    this.user.set(session.user);
    this.expired.set(false);
    this.live.get()?.stop();
    this.live.set(null);
    void this.connect();
  }
}

export const subjectOf = (user: User): string => `user:${user.id}`;
export const has = (user: User | null, ...roles: Role[]): boolean => user?.roles.some((role) => roles.includes(role)) ?? false;

/** Where a person's work begins. */
export function homeOf(user: User): '/app/today' | '/app/board' | '/app/account/profile' {
  if (has(user, 'clinician')) return '/app/today';
  return has(user, 'staff', 'admin') ? '/app/board' : '/app/account/profile';
}
