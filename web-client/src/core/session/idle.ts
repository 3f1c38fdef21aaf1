// Silence of a person at a screen: warned before it ends the session, ended on time, also over a sleep of the machine.
import { Store } from '../store/emitter';

export interface IdleOptions {
  limitMs: number;
  warnMs: number;
  now: () => number;
  /** Something goes on that needs no hands: a call. */
  held: () => boolean;
  /** Tells the server that somebody is here, so that its own clock of silence begins again. */
  ping: () => void;
  end: () => void;
}

/** The server hears of somebody at most this often. */
const PING_MS = 60_000;

export class Idle {
  /** Milliseconds that are left, once the warning stands; null before. */
  readonly left = new Store<number | null>(null);
  readonly #options: IdleOptions;
  #seen: number;
  #told: number;
  #ended = false;

  constructor(options: IdleOptions) {
    this.#options = options;
    this.#seen = options.now();
    this.#told = this.#seen;
  }

  /** Somebody moved, typed or touched. A standing warning is answered by its button alone: a jolt of the table is no answer. */
  moved(): void {
    if (this.left.get() === null) this.#be();
  }

  /** "I am still here." */
  stay(): void {
    this.left.set(null);
    this.#be();
  }

  /** Once a second or so; a late call, after a sleep, ends at once what is over. */
  tick(): void {
    if (this.#ended) return;
    const now = this.#options.now();
    if (this.#options.held() && this.left.get() === null) this.#be();
    const left = this.#seen + this.#options.limitMs - now;
    if (left <= 0) {
      this.#ended = true;
      this.left.set(null);
      this.#options.end();
    } else if (left <= this.#options.warnMs) {
      this.left.set(left);
    }
  }

  #be(): void {
    const now = this.#options.now();
    // Movement after the limit does not raise the dead: the next tick ends it.
    if (now - this.#seen >= this.#options.limitMs) return;
    this.#seen = now;
    if (now - this.#told >= PING_MS) {
      this.#told = now;
      this.#options.ping();
    }
  }
}
