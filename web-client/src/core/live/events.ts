// What arrives on each kind of channel.
import type { Alert, FileState, Member, Message, Notice, ResultReport, Visit } from '../api/types';

export interface VisitUpdated { kind: 'visit.updated'; visit: Visit }
export type ConversationEvent =
  | { kind: 'message.created'; message: Message }
  | ({ kind: 'receipt.updated' } & Partial<Member> & { receipt?: Partial<Member> })
  | { kind: 'file.checked'; file: string; state: FileState }
  | { kind: 'typing'; subject?: string; sender?: { subject: string } };
export type PatientEvent =
  | { kind: 'reading'; code: string; name: string; value: number; unit: string; at: string | number; device?: string }
  | { kind: 'result.card'; report: ResultReport };
export type BoardEvent = { kind: 'alert.raised' | 'alert.acknowledged'; alert: Alert };
export interface UserEvent { kind: 'notification.created'; notification: Notice }

/** `user:UUID` -> `UUID`: channel names carry the bare id. */
export function bareId(subject: string): string {
  return subject.slice(subject.indexOf(':') + 1);
}
