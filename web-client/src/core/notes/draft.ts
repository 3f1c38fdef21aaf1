// A note's draft on this device, for each visit and author. Written a moment after the last key, and at once when the page goes away.
import { Store } from '../store/emitter';
import type { Keeper } from '../store/keep';

interface Kept { text: string; at: number }
export type Saved = { at: number } | 'typing' | 'empty';

export const AUTOSAVE_MS = 800;

export class Draft {
  readonly saved: Store<Saved>;
  text: string;
  readonly #key: string;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(visit: string, author: string, private readonly keep: Keeper, private readonly now: () => number = Date.now) {
    this.#key = `medtech.note.${visit}.${author}`;
    const kept = keep.read<Kept>(this.#key);
    this.text = kept?.text ?? '';
    this.saved = new Store<Saved>(kept ? { at: kept.at } : 'empty');
  }

  change(text: string): void {
    this.text = text;
    this.saved.set('typing');
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), AUTOSAVE_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    if (this.saved.get() !== 'typing') return;
    const at = this.now();
    this.keep.write(this.#key, { text: this.text, at });
    this.saved.set({ at });
  }
}
