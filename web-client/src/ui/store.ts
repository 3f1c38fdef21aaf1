// How components read core: watched values, and the translator.
import { useEffect, useState, useSyncExternalStore } from 'react';
import { translation, type Language, type T } from '../core/i18n/i18n';
import type { Store } from '../core/store/emitter';

export function useStore<V>(store: Store<V>): V {
  return useSyncExternalStore(store.subscribe, store.get);
}

const never = { get: () => null, subscribe: () => () => undefined };
/** The same for a part that may not be there yet. */
export function useMaybe<V>(store: Store<V> | null | undefined): V | null {
  const source: { get: () => V | null; subscribe: (f: () => void) => () => void } = store ?? never;
  return useSyncExternalStore(source.subscribe, source.get);
}

const untranslated: T = (key) => key;

export function useT(): T {
  return useStore(translation)?.t ?? untranslated;
}

export function useLanguage(): Language {
  return useStore(translation)?.language ?? 'en';
}

/** The moment, renewed every `everyMs` while the page is looked at. */
export function useNow(everyMs: number): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const tick = () => { if (!document.hidden) setNow(Date.now()); };
    const timer = setInterval(tick, everyMs);
    document.addEventListener('visibilitychange', tick);
    return () => { clearInterval(timer); document.removeEventListener('visibilitychange', tick); };
  }, [everyMs]);
  return now;
}

/** Whether the browser believes that there is a network. */
export function useOnline(): boolean {
  return useSyncExternalStore((changed) => {
    window.addEventListener('online', changed);
    window.addEventListener('offline', changed);
    return () => { window.removeEventListener('online', changed); window.removeEventListener('offline', changed); };
  }, () => navigator.onLine);
}

/** Whether a media query holds, now and as the window changes. */
export function useMedia(query: string): boolean {
  return useSyncExternalStore((changed) => {
    const media = window.matchMedia(query);
    media.addEventListener('change', changed);
    return () => media.removeEventListener('change', changed);
  }, () => window.matchMedia(query).matches);
}

/** Names the tab. Titles carry no clinical content. */
export function useTitle(title: string): void {
  useEffect(() => { document.title = title; }, [title]);
}

/** For the field that a step is about: whoever came to it by keyboard or screen reader goes on there. */
export const takeFocus = (element: HTMLElement | null): void => element?.focus();
