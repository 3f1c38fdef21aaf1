// The consultation on the patient's side: the clinician large, oneself small, four controls with words.
import { useEffect, useState } from 'react';
import type { Visit } from '../core/api/types';
import type { Thread } from '../core/chat/thread';
import type { Live } from '../core/live/live';
import type { Call } from '../core/media/call';
import { ChatPanel } from '../chat/ChatPanel';
import { useUnread } from '../chat/unread';
import { CallStage } from '../call/CallStage';
import { ControlBar } from '../call/ControlBar';
import { Button } from '../ui/parts';
import { useT } from '../ui/store';
import { Connection } from './Connection';
import { guestToken } from './token';

export function Consult({ visit, live, thread, call, onLeave }: {
  visit: Visit; live: Live | null; thread: Thread | null; call: Call | null; onLeave: () => void;
}) {
  const t = useT();
  const [chat, setChat] = useState(false);
  const [leaving, setLeaving] = useState(false);
  const unread = useUnread(thread, chat);
  useEffect(() => {
    if (!chat && !leaving) return;
    const close = (event: KeyboardEvent) => {
      if (event.key !== 'Escape') return;
      if (leaving) setLeaving(false);
      else setChat(false);
    };
    window.addEventListener('keydown', close);
    return () => window.removeEventListener('keydown', close);
  }, [chat, leaving]);
  return (
    <div className="consult" data-chat={chat || undefined} data-testid="consult">
      <h1 className="sr-only">{t('visit.consult.title', { name: visit.host.name })}</h1>
      <div className="consult-stage">
        <CallStage call={call} other={visit.host} since={visit.admitted_at ?? null} also={visit.colleagues ?? []} />
        <div className="consult-banner"><Connection live={live} /></div>
        {leaving ? (
          <div className="confirm" role="alertdialog" aria-label={t('visit.consult.leave_sure')}>
            <p><strong>{t('visit.consult.leave_sure')}</strong></p>
            <p>{t('visit.consult.leave_text')}</p>
            <div className="action-row">
              {/* The question was asked by tapping Leave: the answer that changes nothing is ready to be taken. */}
              {/* eslint-disable-next-line jsx-a11y/no-autofocus */}
              <Button size="l" autoFocus onClick={() => setLeaving(false)} data-testid="leave-stay">{t('visit.consult.stay')}</Button>
              <Button size="l" variant="danger" onClick={onLeave} data-testid="leave-confirm">{t('call.leave')}</Button>
            </div>
          </div>
        ) : (
          <ControlBar call={call} chatOpen={chat} unread={unread} onChat={() => setChat((open) => !open)} onLeave={() => setLeaving(true)} large />
        )}
      </div>
      {chat && thread ? <aside className="consult-chat"><ChatPanel thread={thread} title={visit.host.name} token={guestToken} onClose={() => setChat(false)} /></aside> : null}
    </div>
  );
}
