// The waiting room: the place in line, live, and the promise that it is kept.
import { useState } from 'react';
import type { Visit } from '../core/api/types';
import type { Thread } from '../core/chat/thread';
import type { Live } from '../core/live/live';
import type { Call } from '../core/media/call';
import { sentBack } from '../core/visit/phase';
import { age, clockTime, millis } from '../core/time/time';
import { ChatPanel } from '../chat/ChatPanel';
import { useUnread } from '../chat/unread';
import { Icon } from '../ui/Icon';
import { Avatar, Button, Notice } from '../ui/parts';
import { useLanguage, useMaybe, useNow, useT } from '../ui/store';
import { Video } from '../ui/Video';
import { guestToken } from './token';
import { Connection } from './Connection';
import { Heading, Page } from './Page';

export function Waiting({ visit, clinic, live, thread, call, onLeave }: {
  visit: Visit; clinic: string | null; live: Live | null; thread: Thread | null; call: Call | null; onLeave: () => void;
}) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(10_000);
  const state = useMaybe(call?.state);
  const [chat, setChat] = useState(false);
  const unread = useUnread(thread, chat);
  const arrived = millis(visit.arrived_at);
  const start = millis(visit.start) ?? now;
  const place = visit.position ?? null;
  const back = sentBack(visit);

  if (chat && thread) {
    return (
      <div className="sheet">
        <Connection live={live} />
        <ChatPanel thread={thread} title={visit.host.name} token={guestToken} onClose={() => setChat(false)} />
      </div>
    );
  }
  return (
    <Page clinic={clinic} action={
      <div className="action-row">
        <Button size="l" icon="chat" onClick={() => setChat(true)} disabled={!thread} data-testid="open-chat">
          {unread > 0 ? t('chat.unread', { count: unread }) : t('visit.waiting.chat')}
        </Button>
      </div>
    }>
      <Connection live={live} />
      <div className="waiting" data-testid="waiting-room">
        <div className="waiting-rings"><i /><i /><Avatar name={visit.host.name} size="xl" /></div>
        <Heading>{back ? t('visit.waiting.back_title') : place !== null && place > 1 ? t('visit.waiting.place', { place }) : t('visit.waiting.next')}</Heading>
        <p className="lead" role="status" data-testid="waiting-text">
          {back ? t('visit.waiting.back_text', { name: visit.host.name })
            : place !== null && place > 1 ? t('visit.waiting.ahead', { count: place - 1 })
            : t('visit.waiting.soon', { name: visit.host.name })}
        </p>
        <p className="kept"><Icon name="check" size={18} />{t('visit.waiting.kept')}</p>
      </div>
      {start - now > 60_000 && !back ? <Notice>{t('visit.waiting.early', { time: clockTime(start, language) })}</Notice> : null}
      <section className="card waiting-self">
        <div className="waiting-preview">
          {state?.localVideo && state.cameraOn ? <Video track={state.localVideo} mirror label={t('visit.self_view')} testId="self-view" /> : <Icon name="cameraOff" size={26} />}
        </div>
        <div>
          <p><strong>{state?.hasCamera ? t('visit.waiting.camera_ready') : t('visit.waiting.audio_ready')}</strong></p>
          <p className="muted small">{t('visit.waiting.not_seen')}</p>
          {arrived !== null && now - arrived >= 60_000 ? <p className="muted small num">{t('visit.waiting.since', { age: age(now - arrived, language) })}</p> : null}
        </div>
      </section>
      <button type="button" className="quiet-link" onClick={onLeave} data-testid="leave-waiting">{t('visit.waiting.leave')}</button>
    </Page>
  );
}
