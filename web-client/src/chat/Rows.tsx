// The marks of a message's way: waiting, failed, sent, delivered, read.
import type { Pending } from '../core/chat/outbox';
import { tickFor } from '../core/chat/log';
import type { Thread } from '../core/chat/thread';
import type { MessageKey } from '../core/i18n/i18n';
import { Icon } from '../ui/Icon';
import { useStore, useT } from '../ui/store';

const TICKS: Record<ReturnType<typeof tickFor>, MessageKey> = { sent: 'chat.sent', delivered: 'chat.delivered', read: 'chat.read' };

export function TickMark({ thread, seq }: { thread: Thread; seq: number }) {
  const t = useT();
  const { members } = useStore(thread.state);
  const tick = tickFor(seq, members, thread.own);
  return (
    <span className="tick" data-tick={tick} data-testid="tick">
      <span className="sr-only">{t(TICKS[tick])}</span>
      <svg width="18" height="12" viewBox="0 0 18 12" fill="none" stroke="currentColor" strokeWidth="1.7" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
        <path d="M1.500 6.500 4.500 9.500 10.500 2.500" />{tick === 'sent' ? null : <path d="M7 8.500l1.200 1L15 2.500" />}
      </svg>
    </span>
  );
}

export function PendingRow({ pending, onRetry, onDiscard }: { pending: Pending; onRetry: () => void; onDiscard: () => void }) {
  const t = useT();
  const failed = pending.state === 'failed';
  return (
    <li className="msg" data-own data-pending={pending.state} data-testid="message-pending">
      <div className="bubble"><span className="bubble-text">{pending.body.text ?? pending.body.file?.name}</span></div>
      <span className="msg-meta">
        {failed ? (
          <>
            <span className="msg-failed"><Icon name="alert" size={14} />{t('chat.failed')}</span>
            <button type="button" className="link-btn" onClick={onRetry} data-testid="message-retry">{t('common.retry')}</button>
            <button type="button" className="link-btn" onClick={onDiscard}>{t('chat.discard')}</button>
          </>
        ) : <><Icon name="clock" size={13} />{t('chat.sending')}</>}
      </span>
    </li>
  );
}
