// Messages on their way. Each keeps its client_id for every try, so the server stores it once however often it is
// sent; order is kept; unsent ones survive a reload. Bound: 200 waiting messages, then `add` refuses (returns null).
import type { Message, MessageBody } from '../api/types';
import { asApiError } from '../api/problem';
import { Store } from '../store/emitter';
import type { Keeper } from '../store/keep';

export interface Pending { clientId: string; body: MessageBody; at: string; state: 'waiting' | 'failed' }

export interface OutboxOptions {
  key: string;
  send: (clientId: string, body: MessageBody) => Promise<Message>;
  onSent: (message: Message) => void;
  keep: Keeper;
  newId?: () => string;
  now?: () => Date;
  /** Waits before the next try. */
  sleep?: (ms: number) => Promise<void>;
}

export const OUTBOX_LIMIT = 200;

/** How many changes of this tab wait for the network, over all open conversations. */
export const waitingChanges = new Store(0);

export class Outbox {
  readonly pending: Store<readonly Pending[]>;
  readonly #options: OutboxOptions;
  #running = false;
  #stopped = false;
  #wake: (() => void) | null = null;

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.pending = new Store(options.keep.read<Pending[]>(options.key) ?? []);
    waitingChanges.update((n) => n + this.pending.get().length);
  }

  add(body: MessageBody): string | null {
    if (this.pending.get().length >= OUTBOX_LIMIT) return null;
    const clientId = (this.#options.newId ?? (() => crypto.randomUUID()))();
    const at = (this.#options.now?.() ?? new Date()).toISOString();
    this.#set([...this.pending.get(), { clientId, body, at, state: 'waiting' }]);
    void this.run();
    return clientId;
  }

  retry(clientId: string): void {
    this.#set(this.pending.get().map((p) => (p.clientId === clientId ? { ...p, state: 'waiting' } : p)));
    void this.run();
  }

  discard(clientId: string): void {
    this.#set(this.pending.get().filter((p) => p.clientId !== clientId));
  }

  /** The message came by another way (live channel, a page of history): nothing left to send. */
  seen(clientId: string): void {
    if (this.pending.get().some((p) => p.clientId === clientId)) this.discard(clientId);
  }

  /** The network is back: try now. */
  wake(): void {
    this.#wake?.();
    void this.run();
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    waitingChanges.update((n) => n - this.pending.get().length);
    this.#wake?.();
  }

  /** Sends what waits, one after the other. Returns when nothing waits any more. */
  async run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      for (let tries = 0; !this.#stopped; ) {
        const next = this.pending.get().find((p) => p.state === 'waiting');
        if (next === undefined) return;
        try {
          const message = await this.#options.send(next.clientId, next.body);
          this.discard(next.clientId);
          this.#options.onSent(message);
          tries = 0;
        } catch (error) {
          const problem = asApiError(error);
          if (!problem.transient) {
            this.#set(this.pending.get().map((p) => (p.clientId === next.clientId ? { ...p, state: 'failed' } : p)));
            continue;
          }
          await this.#pause(problem.retryAfter ?? Math.min(1000 * 2 ** tries, 15_000));
          tries += 1;
        }
      }
    } finally {
      this.#running = false;
    }
  }

  #pause(ms: number): Promise<void> {
    const sleep = this.#options.sleep ?? ((t: number) => new Promise<void>((done) => setTimeout(done, t)));
    return Promise.race([sleep(ms), new Promise<void>((done) => { this.#wake = done; })]).finally(() => { this.#wake = null; });
  }

  #set(pending: readonly Pending[]): void {
    if (!this.#stopped) waitingChanges.update((n) => n + pending.length - this.pending.get().length);
    this.pending.set(pending);
    if (pending.length === 0) this.#options.keep.remove(this.#options.key);
    else this.#options.keep.write(this.#options.key, pending);
  }
}
