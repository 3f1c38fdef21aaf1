// Which screen a patient is on: the server's state first, the patient's own steps only before the waiting room.
import type { Visit } from '../api/types';

export type Step = 'welcome' | 'devices' | 'consent';
export type Screen = Step | 'waiting' | 'consult' | 'ended';

export function screenFor(visit: Visit, step: Step): Screen {
  switch (visit.state) {
    case 'ended': return 'ended';
    case 'waiting': return 'waiting';
    case 'admitted':
    case 'in_consult': return 'consult';
    case 'scheduled':
    case 'device_check': return step;
  }
}

/** A visit's two copies: an answer and a live event may cross. The greater revision wins; among equals the later to arrive. */
export function newer(known: Visit | null, incoming: Visit): Visit {
  if (known === null || known.id !== incoming.id) return incoming;
  if (known.rev !== undefined && incoming.rev !== undefined && incoming.rev < known.rev) return known;
  return known.state === 'ended' && incoming.state !== 'ended' ? known : incoming;
}

/** True after the clinician sent the patient back to wait. */
export function sentBack(visit: Visit): boolean {
  return visit.state === 'waiting' && Boolean(visit.admitted_at);
}

/** Minutes after which a wait is long, and very long. */
export function waitLevel(ms: number): 'short' | 'long' | 'very_long' {
  if (ms >= 20 * 60_000) return 'very_long';
  return ms >= 10 * 60_000 ? 'long' : 'short';
}
