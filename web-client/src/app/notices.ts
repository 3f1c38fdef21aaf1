// What a person was told: the list from the server, and each new notice as it comes.
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { notices } from '../core/api/endpoints';
import type { Notice } from '../core/api/types';
import { bareId, type UserEvent } from '../core/live/events';
import { subjectOf } from '../core/session/hub';
import { hub, queries, restartReads, useChannel, useUser } from './hub';

const KEY = ['notices'] as const;
type List = { notifications: Notice[] };

/** `latest` is the newest notice that came while the page was open, until it is put away. */
export function useNotices() {
  const user = useUser();
  const [latest, setLatest] = useState<Notice | null>(null);
  const query = useQuery({ queryKey: KEY, queryFn: () => notices.list(hub.api), enabled: user !== null });
  useChannel<UserEvent>(user ? `user:${bareId(subjectOf(user))}` : null, (event) => {
    if (event.kind !== 'notification.created') return;
    const { notification } = event;
    queries.setQueryData<List>(KEY, (known) => ({ notifications: [notification, ...(known?.notifications ?? []).filter((n) => n.id !== notification.id)] }));
    restartReads(KEY);
    setLatest(notification);
  }, () => void query.refetch());
  const list = (query.data?.notifications ?? []).toSorted((a, b) => b.at.localeCompare(a.at));
  return { query, list, unread: list.filter((n) => !n.read_at).length, latest, putAway: () => setLatest(null) };
}

/** Shown as read at once; a refusal brings the truth back. */
export function markRead(which: readonly Notice[]): void {
  const ids = new Set(which.filter((n) => !n.read_at).map((n) => n.id));
  if (ids.size === 0) return;
  const now = new Date().toISOString();
  queries.setQueryData<List>(KEY, (known) => known && { notifications: known.notifications.map((n) => (ids.has(n.id) ? { ...n, read_at: now } : n)) });
  Promise.all([...ids].map((id) => notices.read(hub.api, id))).catch(() => void queries.invalidateQueries({ queryKey: KEY }));
}

/** Only ways inside the app are followed. */
export const wayOf = (notice: Notice): string | null => (notice.link?.startsWith('/app/') ? notice.link : null);
