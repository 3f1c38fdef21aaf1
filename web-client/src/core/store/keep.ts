// Small values kept in the browser's storage. A browser that refuses storage must not break a visit, so every call is guarded.

export interface Keeper {
  read<T>(key: string): T | null;
  write(key: string, value: unknown): void;
  remove(key: string): void;
}

export function keeper(area: () => Storage): Keeper {
  return {
    read<T>(key: string): T | null {
      try {
        const text = area().getItem(key);
        return text === null ? null : (JSON.parse(text) as T);
      } catch {
        return null;
      }
    },
    write(key, value) {
      try {
        area().setItem(key, JSON.stringify(value));
      } catch {
        // Full or forbidden storage: the value lives for this page only.
      }
    },
    remove(key) {
      try {
        area().removeItem(key);
      } catch {
        // Nothing was kept.
      }
    },
  };
}

/** Lives as long as the tab: tokens, links, unsent messages. */
export const tab = keeper(() => sessionStorage);
/** Lives on this device: the device id, preferences, note drafts. */
export const device = keeper(() => localStorage);
