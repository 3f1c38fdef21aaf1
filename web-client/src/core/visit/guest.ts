// A patient's visit from the link to the end: opens the link, follows the live state, and comes back after a reload.
import { ApiClient } from '../api/client';
import { tab, type Keeper } from '../store/keep';
import { forNow, ownKeeper } from '../store/sealed';
import { identity, visits } from '../api/endpoints';
import { asApiError, type ApiError } from '../api/problem';
import type { DeviceCheck, Person, Visit } from '../api/types';
import { Thread } from '../chat/thread';
import type { VisitUpdated } from '../live/events';
import { openLive, type Live } from '../live/live';
import { deviceIdentity, guestSession, takeLink } from '../session/session';
import { Store } from '../store/emitter';
import { newer } from './phase';

/** Names the words that the patient agreed to; raised whenever they change. */
export const CONSENT_VERSION = '2026-11-1';

const TAKE_OVER_EVERY_MS = 2500;

export interface GuestState {
  status: 'opening' | 'ready' | 'failed' | 'left';
  visit: Visit | null;
  me: Person | null;
  clinic: string | null;
  error: ApiError | null;
  /** Takes the visit over as soon as the other device is gone. */
  taking: boolean;
  live: Live | null;
  thread: Thread | null;
}

const EMPTY: GuestState = { status: 'opening', visit: null, me: null, clinic: null, error: null, taking: false, live: null, thread: null };

export class GuestVisit {
  readonly state = new Store<GuestState>(EMPTY);
  readonly api: ApiClient;
  #leave: (() => void) | null = null;
  #reopened = false;
  /** Where unsent words lie, sealed. */
  #keep: Keeper = forNow();
  #changes = 0;

  constructor() {
    this.api = new ApiClient({ token: () => guestSession.read()?.token ?? null, onUnauthorized: () => this.#refused() });
  }

  /** Reads the link from the address, else goes on with this tab's session. */
  async start(): Promise<void> {
    const link = takeLink();
    const kept = guestSession.read();
    if (link !== null && link !== kept?.link) {
      guestSession.write({ link });
      return this.open();
    }
    if (kept?.token && kept.visitId) {
      try {
        const visit = await visits.get(this.api, kept.visitId);
        await this.#enter(visit, { subject: kept.subject ?? visit.guest.subject, name: visit.guest.name });
        return;
      } catch (error) {
        const problem = asApiError(error);
        if (problem.status === 0 || problem.status >= 500) { this.#fail(problem); return; }
      }
    }
    return this.open();
  }

  async open(): Promise<void> {
    this.#patch({ status: 'opening', error: null, taking: false });
    try {
      await this.#open(false);
    } catch (error) {
      this.#fail(asApiError(error));
    }
  }

  /** The visit is open on another device: goes on asking until that one is gone, so that nobody has to keep tapping. */
  async takeOver(): Promise<void> {
    if (this.state.get().taking) return;
    this.#patch({ taking: true });
    while (this.state.get().taking) {
      try {
        await this.#open(true);
        return;
      } catch (error) {
        const problem = asApiError(error);
        if (problem.code !== 'visit.link_in_use' && !problem.transient) { this.#fail(problem); return; }
      }
      await new Promise((done) => setTimeout(done, TAKE_OVER_EVERY_MS));
    }
  }

  async #open(takeOver: boolean): Promise<void> {
    const link = guestSession.read()?.link ?? '';
    const opened = await visits.open(new ApiClient(), link, deviceIdentity(), takeOver);
    guestSession.write({ link, token: opened.access_token, visitId: opened.visit.id, subject: opened.me.subject });
    this.#reopened = false;
    await this.#enter(opened.visit, opened.me);
  }

  async deviceCheck(check: DeviceCheck): Promise<void> {
    const visit = this.state.get().visit;
    if (visit) this.#take(await visits.deviceCheck(this.api, visit.id, check));
  }

  async consent(language: string): Promise<void> {
    const visit = this.state.get().visit;
    if (visit) this.#take(await visits.consent(this.api, visit.id, CONSENT_VERSION, language));
  }

  /** Leaves for now; the place is kept until the clinician ends the visit. */
  async leave(): Promise<void> {
    const visit = this.state.get().visit;
    this.#patch({ status: 'left' });
    this.#close();
    if (visit) await visits.act(this.api, visit.id, 'leave').catch(() => undefined);
  }

  stop(): void {
    this.#patch({ taking: false });
    this.#close();
  }

  async #enter(visit: Visit, me: Person): Promise<void> {
    this.#close();
    const token = guestSession.read()?.token;
    if (!token) return;
    this.#patch({ status: 'ready', me, error: null, taking: false });
    this.#take(visit);
    identity.me(this.api).then(({ tenant }) => this.#patch({ clinic: tenant.name }), () => undefined);
    const [live, keep] = await Promise.all([openLive(token), ownKeeper(tab, () => identity.deviceKey(this.api))]);
    this.#keep = keep;
    if (this.state.get().status !== 'ready') { live.stop(); return; }
    this.#patch({ live });
    const off = live.watch<VisitUpdated>(`encounter:${visit.id}`, {
      onData: (event) => { if (event.kind === 'visit.updated') this.#take(event.visit); },
      onGap: () => { this.#read(visit.id).catch(() => undefined); },
    });
    const expiry = live.state.subscribe(() => { if (live.state.get().at === 'expired') this.#refused(); });
    this.#leave = () => { off(); expiry(); live.stop(); };
    this.#talk();
  }

  /** From the waiting room on there is a conversation. */
  #talk(): void {
    const { visit, live, thread, me } = this.state.get();
    if (!visit?.conversation_id || !live || !me || thread) return;
    if (visit.state !== 'waiting' && visit.state !== 'admitted' && visit.state !== 'in_consult') return;
    this.#patch({ thread: new Thread(visit.conversation_id, me.subject, this.api, live, this.#keep) });
  }

  /** Reads the visit. An answer that a live event has overtaken is old news: it is dropped and read again. */
  async #read(id: string): Promise<void> {
    for (let tries = 0; tries < 5; tries += 1) {
      const before = this.#changes;
      const fresh = await visits.get(this.api, id);
      if (before !== this.#changes) continue;
      this.#take(fresh);
      return;
    }
  }

  #take(incoming: Visit): void {
    this.#changes += 1;
    this.#patch({ visit: newer(this.state.get().visit, incoming) });
    this.#talk();
  }

  /** The session is no longer good: the link may have been taken over, or the visit has ended. Asking the link tells which. */
  #refused(): void {
    if (this.#reopened || this.state.get().status !== 'ready') return;
    this.#reopened = true;
    this.#close();
    void this.open();
  }

  #fail(error: ApiError): void {
    this.#close();
    this.#patch({ status: 'failed', error, taking: false });
  }

  #close(): void {
    this.state.get().thread?.close();
    this.#leave?.();
    this.#leave = null;
    this.#patch({ thread: null, live: null });
  }

  #patch(change: Partial<GuestState>): void {
    this.state.update((state) => ({ ...state, ...change }));
  }
}
