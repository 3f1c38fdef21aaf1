// Everybody who waits at the clinic, live: a staff member may follow the queue of each clinician.
import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { visits } from '../../core/api/endpoints';
import type { Visit } from '../../core/api/types';
import { bareId, type VisitUpdated } from '../../core/live/events';
import { has } from '../../core/session/hub';
import { newer } from '../../core/visit/phase';
import { useStore } from '../../ui/store';
import { hub, queries, restartReads, useUser } from '../hub';

/** A clinician's first visit of the day has no queue to follow yet; a slow reading finds it. */
const LOOK_MS = 30_000;

export function useBoardVisits() {
  const live = useStore(hub.live);
  const all = has(useUser(), 'staff', 'admin');
  const query = useQuery({ queryKey: ['visits', 'board', all], queryFn: () => visits.list(hub.api, all), refetchInterval: LOOK_MS });
  const hosts = [...new Set((query.data?.visits ?? []).map((v) => bareId(v.host.subject)))].toSorted().join(' ');
  const { refetch } = query;
  useEffect(() => {
    if (!live || hosts === '') return;
    const stops = hosts.split(' ').map((host) => live.watch<VisitUpdated>(`queue:${host}`, {
      onData: (event) => { if (event.kind === 'visit.updated') take(all, event.visit); },
      onGap: () => void refetch(),
    }));
    return () => { for (const stop of stops) stop(); };
  }, [live, hosts, all, refetch]);
  return query;
}

function take(all: boolean, visit: Visit): void {
  const key = ['visits', 'board', all] as const;
  queries.setQueryData<{ visits: Visit[] }>(key, (known) => known && {
    visits: [...known.visits.filter((v) => v.id !== visit.id), newer(known.visits.find((v) => v.id === visit.id) ?? null, visit)],
  });
  restartReads(key);
}
