// Open visits in the query cache, kept true by the live queue.
import { useMutation, useQuery } from '@tanstack/react-query';
import { appointments, visits } from '../core/api/endpoints';
import type { Visit } from '../core/api/types';
import { bareId, type VisitUpdated } from '../core/live/events';
import { subjectOf } from '../core/session/hub';
import { Store } from '../core/store/emitter';
import { device } from '../core/store/keep';
import { newer } from '../core/visit/phase';
import { hub, queries, restartReads, useChannel, useUser } from './hub';

/** A chime when somebody arrives; a person's own choice on this device. */
export const arrivalSound = new Store<boolean>(device.read<boolean>('medtech.sound') ?? true);

export function setArrivalSound(on: boolean): void {
  device.write('medtech.sound', on);
  arrivalSound.set(on);
}

const LIST = ['visits', 'own'] as const;
const one = (id: string) => ['visit', id] as const;

/** Takes what a live event or an answer says. A read that is under way was overtaken by it, and starts again. */
export function takeVisit(visit: Visit): void {
  // What one may do is said in answers alone.
  queries.setQueryData<Visit>(one(visit.id), (known) => newer(known ?? null, known?.may && !visit.may ? { ...visit, may: known.may } : visit));
  queries.setQueryData<{ visits: Visit[] }>(LIST, (known) => {
    if (!known) return known;
    const rest = known.visits.filter((v) => v.id !== visit.id);
    const latest = newer(known.visits.find((v) => v.id === visit.id) ?? null, visit);
    return { visits: latest.state === 'ended' ? rest : [...rest, latest] };
  });
  restartReads(one(visit.id));
  restartReads(LIST);
}

export function useOpenVisits(onArrival?: (visit: Visit) => void) {
  const user = useUser();
  const query = useQuery({ queryKey: LIST, queryFn: () => visits.list(hub.api, false) });
  useChannel<VisitUpdated>(user ? `queue:${bareId(subjectOf(user))}` : null, (event) => {
    if (event.kind !== 'visit.updated') return;
    const before = query.data?.visits.find((v) => v.id === event.visit.id);
    if (event.visit.state === 'waiting' && before?.state !== 'waiting' && !event.visit.admitted_at) onArrival?.(event.visit);
    takeVisit(event.visit);
  }, () => void query.refetch());
  return query;
}

export function useVisit(id: string) {
  const query = useQuery({ queryKey: one(id), queryFn: () => visits.get(hub.api, id) });
  useChannel<VisitUpdated>(`encounter:${id}`, (event) => {
    if (event.kind !== 'visit.updated') return;
    // The visit's own channel may carry the patient's view, which leaves out what only the host may see.
    const known = queries.getQueryData<Visit>(one(id));
    takeVisit({ ...event.visit, subject_ref: event.visit.subject_ref ?? known?.subject_ref ?? null });
    // For a colleague another one's coming and going may change what they may do.
    if (known?.may && !known.may.includes('lead')) void query.refetch();
  }, () => void query.refetch());
  return query;
}

export function useVisitAction() {
  return useMutation({
    mutationFn: ({ id, action }: { id: string; action: 'admit' | 'hold' | 'end' }) => visits.act(hub.api, id, action),
    onSuccess: takeVisit,
  });
}

/** Joins somebody else's visit as a colleague, or ends one's part in it. */
export function useColleague(id: string) {
  return useMutation({
    mutationFn: (part: { leave?: string }) => (part.leave === undefined ? visits.join(hub.api, id) : visits.part(hub.api, id, part.leave)),
    onSuccess: takeVisit,
  });
}

export function useDay() {
  return useQuery({ queryKey: ['today'], queryFn: () => appointments.day(hub.api), refetchInterval: 60_000 });
}

/** Those who wait, the longest first; a patient sent back keeps the place. */
export function waitingOf(all: readonly Visit[]): Visit[] {
  return all.filter((v) => v.state === 'waiting').toSorted((a, b) =>
    (a.position ?? 1e9) - (b.position ?? 1e9) || (a.arrived_at ?? '').localeCompare(b.arrived_at ?? ''));
}
