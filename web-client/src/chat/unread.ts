// How many messages of others came since the conversation was last looked at.
import type { Thread } from '../core/chat/thread';
import { useMaybe } from '../ui/store';

export function useUnread(thread: Thread | null, open: boolean): number {
  const state = useMaybe(thread?.state);
  if (!thread || !state || open) return 0;
  const read = state.members.find((m) => m.subject === thread.own)?.read_upto ?? 0;
  return state.messages.filter((m) => m.seq > read && m.sender.subject !== thread.own).length;
}
