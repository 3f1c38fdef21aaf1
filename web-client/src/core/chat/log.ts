// The pure part of a conversation: merging messages by sequence, finding gaps, and reading receipt cursors.
import type { FileState, Member, Message } from '../api/types';

/** Adds messages in order of `seq`, each once. Returns the same array where nothing was new. */
export function merge(log: readonly Message[], more: readonly Message[]): readonly Message[] {
  const known = new Set(log.map((m) => m.seq));
  const fresh = more.filter((m) => !known.has(m.seq));
  if (fresh.length === 0) return log;
  return [...log, ...fresh].toSorted((a, b) => a.seq - b.seq);
}

/** The sequence after which a message is missing, or null. The server's sequence has no holes. */
export function gapAfter(log: readonly Message[]): number | null {
  for (let i = 1; i < log.length; i += 1) {
    const before = log[i - 1];
    const here = log[i];
    if (before && here && here.seq > before.seq + 1) return before.seq;
  }
  return null;
}

export type Tick = 'sent' | 'delivered' | 'read';

/** How far a message of one's own has come: the least far of all other members. */
export function tickFor(seq: number, members: readonly Member[], own: string): Tick {
  const others = members.filter((m) => m.subject !== own);
  if (others.length === 0) return 'sent';
  if (others.every((m) => m.read_upto >= seq)) return 'read';
  if (others.every((m) => Math.max(m.delivered_upto, m.read_upto) >= seq)) return 'delivered';
  return 'sent';
}

/** Moves a member's cursors; they never go back. */
export function moveCursor(members: readonly Member[], to: Partial<Member>): readonly Member[] {
  return members.map((m) => m.subject !== to.subject ? m : {
    ...m,
    delivered_upto: Math.max(m.delivered_upto, to.delivered_upto ?? 0),
    read_upto: Math.max(m.read_upto, to.read_upto ?? 0),
  });
}

/** Puts what the scanner has said of files into the messages that show them. Returns the same array where nothing changed. */
export function withStates(log: readonly Message[], states: ReadonlyMap<string, FileState>): readonly Message[] {
  let changed = false;
  const next = log.map((m) => {
    const state = m.body.file && states.get(m.body.file.id);
    if (!m.body.file || state === undefined || state === m.body.file.state) return m;
    changed = true;
    return { ...m, body: { ...m.body, file: { ...m.body.file, state } } };
  });
  return changed ? next : log;
}
