// The address that a patient is invited with: their own way into this visit, without an account.
import type { Appointment } from '../../core/api/types';

export function inviteOf(appointment: Appointment | undefined, origin: string = location.origin): string | null {
  const link = appointment?.visit_link;
  return link ? new URL(link, origin).href : null;
}
