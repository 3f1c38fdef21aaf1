// The one hub of this tab, and how the app's components reach it.
import { QueryClient } from '@tanstack/react-query';
import { useEffect, useRef } from 'react';
import { handle, type Shortcuts } from '../core/keys/keys';
import { asApiError } from '../core/api/problem';
import { Hub } from '../core/session/hub';
import { useStore } from '../ui/store';

export const hub = new Hub();

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 15_000,
      retry: (count, error) => count < 3 && asApiError(error).transient,
      refetchOnWindowFocus: true,
    },
  },
});

// What one person has read must not be there for the next one who signs in on this tab.
let last = hub.user.get()?.id;
hub.user.subscribe(() => {
  const now = hub.user.get()?.id;
  if (now !== last) queries.clear();
  last = now;
});

export function restartReads(queryKey: readonly unknown[]): void {
  if (queries.isFetching({ queryKey, exact: true }) > 0) void queries.invalidateQueries({ queryKey, exact: true });
}

export function useUser() {
  return useStore(hub.user);
}

/** Watches a channel while the component stands; the newest handlers are used without joining again. */
export function useChannel<E>(channel: string | null, onData: (event: E) => void, onGap?: () => void): void {
  const live = useStore(hub.live);
  const handlers = useRef({ onData, onGap });
  useEffect(() => { handlers.current = { onData, onGap }; });
  useEffect(() => {
    if (!live || channel === null) return;
    return live.watch<E>(channel, { onData: (event) => handlers.current.onData(event), onGap: () => handlers.current.onGap?.() });
  }, [live, channel]);
}

export function useShortcuts(shortcuts: Shortcuts): void {
  const latest = useRef(shortcuts);
  useEffect(() => { latest.current = shortcuts; });
  useEffect(() => {
    const listen = (event: KeyboardEvent) => handle(latest.current, event);
    window.addEventListener('keydown', listen);
    return () => window.removeEventListener('keydown', listen);
  }, []);
}
