// The signed-in tab: API, live socket and who is here. Signing in again keeps everything that is on the screen.
import { ApiClient } from '../api/client';
import { account, identity, sso, type SsoAnswer } from '../api/endpoints';
import type { Proved, Role, SignedIn, Ticket, User } from '../api/types';
import { openLive, type Live } from '../live/live';
import { Store } from '../store/emitter';
import { askPasskey } from '../webauthn/passkeys';
import { browserSecret, forgetWritten, linkSecret, userSession } from './session';

export class Hub {
  readonly api = new ApiClient({
    token: () => this.token(),
    onUnauthorized: () => this.expired.set(this.user.get() !== null),
    onStepUp: () => this.#askAgain(),
    onSecondFactor: () => this.enrol.set(true),
  });
  /** Proofs are given through this one: asking for one must not ask for another. */
  readonly plainApi = new ApiClient({ token: () => this.token(), onUnauthorized: () => this.expired.set(this.user.get() !== null) });
  /** Where one signs in: the session that this tab holds goes with it and is ended by the new one. */
  readonly #door = new ApiClient({ token: () => this.token(), browser: browserSecret });
  readonly user = new Store<User | null>(userSession.read()?.user ?? null);
  readonly live = new Store<Live | null>(null);
  /** The session ended while somebody works: sign in again in place, keep what is on the screen. */
  readonly expired = new Store(false);
  /** A proof is asked for; told how it went. Requests that come meanwhile wait for the same one. */
  readonly stepUp = new Store<((proved: boolean) => void) | null>(null);
  /** The clinic asks for a second step before clinical data, and there is none yet. */
  readonly enrol = new Store(false);
  /** Why nobody is signed in any more, for the sign-in page to say. */
  readonly left = new Store<'idle' | null>(null);
  #proof: Promise<boolean> | null = null;
  #opening = false;

  token = (): string | null => userSession.read()?.token ?? null;

  /** With a second step: its ticket, and nobody is signed in yet. */
  async signIn(email: string, password: string): Promise<Ticket | null> {
    const answer = await identity.signIn(this.#door, email, password);
    if ('second_factor' in answer) return answer.second_factor;
    this.#enter(answer);
    return null;
  }

  async second(ticket: string, proof: { totp: string } | { recovery: string }): Promise<void> {
    this.#enter(await identity.second(this.#door, ticket, proof));
  }

  async secondPasskey(ticket: string): Promise<void> {
    const used = await askPasskey(await identity.secondPasskey(this.#door, ticket));
    this.#enter(await identity.second(this.#door, ticket, { passkey: used }));
  }

  async signInPasskey(how: { signal?: AbortSignal; autofill?: boolean } = {}): Promise<void> {
    const used = await askPasskey(await identity.passkeyStart(this.#door), how);
    this.#enter(await identity.passkeyFinish(this.#door, used));
  }

  async requestLink(email: string): Promise<void> {
    await identity.requestLink(new ApiClient(), email, linkSecret.keep());
  }

  /** A link to a new password, by mail. */
  async forgotten(email: string): Promise<void> {
    await identity.forgotten(new ApiClient(), email, linkSecret.keep());
  }

  async resetPassword(link: string, next: string, birthDate?: string): Promise<void> {
    const browser = linkSecret.read();
    await identity.resetPassword(this.#door, link, next, { ...(browser ? { browser } : {}), ...(birthDate ? { birth_date: birthDate } : {}) });
    linkSecret.clear();
  }

  async exchange(link: string, birthDate?: string): Promise<void> {
    const browser = linkSecret.read();
    this.#enter(await identity.exchange(this.#door, link, { ...(browser ? { browser } : {}), ...(birthDate ? { birth_date: birthDate } : {}) }));
    linkSecret.clear();
  }

  async finishSso(answer: SsoAnswer): Promise<void> {
    const before = this.token();
    this.#enter(await sso.finish(new ApiClient(), answer));
    if (before !== null) await identity.signOut(new ApiClient({ token: () => before })).catch(() => undefined);
  }

  /** Proves again who is here; the session goes on under a new token, and so do the live channels. */
  async prove(given: { passkey: true } | { totp: string } | { recovery: string } | { password: string }): Promise<void> {
    if ('recovery' in given) throw new Error('a recovery code is for signing in');
    const proved: Proved = 'password' in given ? await account.provePassword(this.plainApi, given.password)
      : 'totp' in given ? await account.proveCode(this.plainApi, given.totp)
        : await account.provePasskey(this.plainApi, await askPasskey(await account.provePasskeyStart(this.plainApi)));
    const session = userSession.read();
    if (!session) return;
    userSession.write({ ...session, token: proved.access_token });
    this.expired.set(false);
    const live = this.live.get();
    if (live?.state.get().at === 'expired') {
      this.live.set(null);
      await this.connect();
    } else {
      live?.renew(proved.access_token);
    }
  }

  async signOut(): Promise<void> {
    // What is on the screen goes at once; whether the server hears of it in time does not hold that up.
    const told = identity.signOut(new ApiClient({ token: ((token) => () => token)(this.token()) })).catch(() => undefined);
    this.live.get()?.stop();
    this.live.set(null);
    userSession.clear();
    forgetWritten();
    this.expired.set(false);
    this.enrol.set(false);
    this.stepUp.get()?.(false);
    this.user.set(null);
    await told;
  }

  #askAgain(): Promise<boolean> {
    this.#proof ??= new Promise<boolean>((done) => this.stepUp.set(done)).finally(() => {
      this.#proof = null;
      this.stepUp.set(null);
    });
    return this.#proof;
  }

  /** Opens the live socket where it is not open yet. */
  async connect(): Promise<void> {
    const token = this.token();
    if (this.#opening || this.live.get() || token === null) return;
    this.#opening = true;
    try {
      const live = await openLive(token);
      live.state.subscribe(() => { if (live.state.get().at === 'expired' && this.live.get() === live) this.#cut(live); });
      this.live.set(live);
    } finally {
      this.#opening = false;
    }
  }

  /** The server ended the live socket: because the session is over, or because it saw the token of before a moment too long. */
  #cut(live: Live): void {
    identity.me(this.plainApi).then(() => {
      if (this.live.get() !== live) return;
      this.live.set(null);
      void this.connect();
    }, () => { if (this.live.get() === live && this.user.get()) this.expired.set(true); });
  }

  #enter(session: SignedIn): void {
    userSession.write({ token: session.access_token, expiresAt: session.expires_at, user: session.user });
    this.user.set(session.user);
    this.expired.set(false);
    this.left.set(null);
    this.live.get()?.stop();
    this.live.set(null);
    void this.connect();
  }
}

export const subjectOf = (user: User): string => `user:${user.id}`;
export const has = (user: User | null, ...roles: Role[]): boolean => [...(user?.roles ?? []), ...(user?.acts_as ?? [])].some((role) => roles.includes(role));

/** Where a person's work begins. */
export function homeOf(user: User): '/app/today' | '/app/board' | '/app/account/profile' {
  if (has(user, 'clinician')) return '/app/today';
  return has(user, 'staff', 'admin') ? '/app/board' : '/app/account/profile';
}
