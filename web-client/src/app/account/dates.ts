// A moment of the past, short: the day, and the time where it was today.
import { timeFormat } from '../../core/time/time';

export function shortDate(at: string, language: string, now = new Date()): string {
  const when = new Date(at);
  const today = when.toDateString() === now.toDateString();
  return timeFormat(language, today ? { timeStyle: 'short' } : { dateStyle: 'medium' }).format(when);
}
