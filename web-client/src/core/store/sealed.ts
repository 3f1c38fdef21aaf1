// Values kept on the device that only their owner reads again: sealed with a key the server gives to who is signed in.
// XChaCha20-Poly1305 with a random nonce; the place is authenticated, so nothing can be moved to another.
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import type { Keeper } from './keep';

const NONCE = 24;
const PREFIX = 'sealed1:';

export function sealed(keep: Keeper, key: Uint8Array): Keeper {
  const cipher = (nonce: Uint8Array, place: string) => xchacha20poly1305(key, nonce, new TextEncoder().encode(place));
  return {
    read<T>(place: string): T | null {
      const kept = keep.read<unknown>(place);
      // Written before values were sealed: taken over, and sealed at the next change.
      if (typeof kept !== 'string' || !kept.startsWith(PREFIX)) return kept as T | null;
      try {
        const box = Uint8Array.from(atob(kept.slice(PREFIX.length)), (c) => c.charCodeAt(0));
        const plain = cipher(box.subarray(0, NONCE), place).decrypt(box.subarray(NONCE));
        return JSON.parse(new TextDecoder().decode(plain)) as T;
      } catch {
        // Another person's, or spoiled.
        return null;
      }
    },
    write(place, value) {
      const nonce = crypto.getRandomValues(new Uint8Array(NONCE));
      const box = cipher(nonce, place).encrypt(new TextEncoder().encode(JSON.stringify(value)));
      keep.write(place, PREFIX + btoa(Array.from([...nonce, ...box], (b) => String.fromCharCode(b)).join('')));
    },
    remove: (place) => keep.remove(place),
  };
}

/** Lives as long as the page: where nothing can be sealed, nothing is kept. */
export function forNow(): Keeper {
  const values = new Map<string, unknown>();
  return { read: <T>(place: string) => (values.get(place) as T | undefined) ?? null, write: (place, value) => void values.set(place, value), remove: (place) => void values.delete(place) };
}

/** What this person keeps in an area of the browser, sealed with the key that the server gives them. */
export async function ownKeeper(keep: Keeper, ask: () => Promise<{ key: string }>): Promise<Keeper> {
  try {
    return sealed(keep, keyOf((await ask()).key));
  } catch {
    return forNow();
  }
}

/** The key as the server gives it: 256 bits in base64. */
export function keyOf(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
