// The consultation on the clinician's side: picture and note on the left, chart beside it, chat when wanted.
import { Link, useParams } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { bareId } from '../../core/live/events';
import { CallStage } from '../../call/CallStage';
import { ControlBar } from '../../call/ControlBar';
import { ChatPanel } from '../../chat/ChatPanel';
import { useUnread } from '../../chat/unread';
import { CopyButton } from '../../ui/CopyButton';
import { ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useMaybe, useT, useTitle } from '../../ui/store';
import { hub, useShortcuts, useUser } from '../hub';
import { subjectOf } from '../../core/session/hub';
import { useColleague, useDay, useVisit, useVisitAction } from '../visits';
import { inviteOf } from '../today/invite';
import { Chart } from './Chart';
import { Colleague } from './Colleague';
import { EndDialog } from './EndDialog';
import { KeysDialog } from './KeysDialog';
import { Note } from './Note';
import { Split } from './Split';
import { useHostCall, useThread } from './useHostCall';
import { VisitBar } from './VisitBar';
import './consult.css';

export function ConsultPage() {
  const { id } = useParams({ from: '/app/visit/$id' });
  // Another visit is another page: nothing of the last one may stay.
  return <Consultation key={id} id={id} />;
}

function Consultation({ id }: { id: string }) {
  const t = useT();
  const user = useUser();
  const query = useVisit(id);
  const act = useVisitAction();
  const visit = query.data;
  const over = visit?.state === 'ended';
  const may = visit?.may ?? [];
  const talks = may.includes('talk');
  const leads = may.includes('lead');
  const me = user ? subjectOf(user) : null;
  const call = useHostCall(id, talks && !over);
  const callState = useMaybe(call?.state);
  const thread = useThread(talks || visit?.host.subject === me ? (visit?.conversation_id ?? null) : null);
  const [chatOpen, setChat] = useState(() => window.innerWidth >= 1280);
  const chat = chatOpen && thread !== null;
  const colleague = useColleague(id);
  const [ending, setEnding] = useState(false);
  const [keys, setKeys] = useState(false);
  const unread = useUnread(thread, chat);
  const day = useDay();
  const invite = over ? null : inviteOf(day.data?.appointments.find((a) => a.visit_id === id));
  useTitle(t('consult.title'));

  const state = visit?.state;
  const can = {
    admit: leads && state === 'waiting',
    hold: leads && (state === 'admitted' || state === 'in_consult'),
    end: leads && state !== undefined && state !== 'ended',
  };
  const run = (action: 'admit' | 'hold' | 'end') => act.mutate({ id, action });
  useShortcuts({
    m: () => { if (callState) void call?.setMic(!callState.micOn); },
    v: () => { if (callState) void call?.setCamera(!callState.cameraOn); },
    c: () => setChat((open) => !open),
    a: () => { if (can.admit && !act.isPending) run('admit'); },
    w: () => { if (can.hold && !act.isPending) run('hold'); },
    e: () => { if (can.end) setEnding(true); },
    '?': () => setKeys(true),
  });
  useEffect(() => { if (over) setEnding(false); }, [over]);
  // The server has put us out of the call: the page shows what is left.
  const refused = callState?.phase === 'refused';
  const { refetch } = query;
  useEffect(() => { if (refused) void refetch(); }, [refused, refetch]);

  if (query.isError && !visit) return <ErrorState error={query.error} onRetry={() => void query.refetch()} />;
  if (!visit || !user) return <Skeleton lines={8} />;
  const inside = state === 'admitted' || state === 'in_consult';
  const others = [...(me === visit.host.subject ? [] : [visit.host]), ...(visit.colleagues ?? []).filter((c) => c.subject !== me)];
  const patient = visit.subject_ref?.replace(/^Patient\//, '') ?? null;
  return (
    <div className="cs" data-testid="consultation" data-state={visit.state}>
      <VisitBar visit={visit} can={can} busy={act.isPending ? act.variables.action : null} onAct={run} onEnd={() => setEnding(true)} onKeys={() => setKeys(true)} />
      {act.isError ? <Notice tone="danger">{t('consult.action_failed')}</Notice> : null}
      <div className="cs-body" data-chat={chat || undefined}>
        <Split label={t('consult.resize')}
          left={
            <div className="cs-left">
              <div className="cs-video">
                {over ? <div className="cs-over"><p>{t('consult.ended')}</p><Link className="btn" data-variant="secondary" to="/app/today" data-testid="to-today">{t('consult.to_today')}</Link></div> : !talks ? (
                  <Colleague visit={visit} mayJoin={may.includes('join')} busy={colleague.isPending} failed={colleague.isError} onJoin={() => colleague.mutate({})} />
                ) : (
                  <>
                    <CallStage call={call} other={visit.guest} since={inside ? (visit.admitted_at ?? null) : null} also={others}
                      idle={state === 'waiting' ? t('consult.waits', { name: visit.guest.name }) : inside ? null : t('consult.not_arrived', { name: visit.guest.name })}
                      help={invite && !(visit.guest.online ?? false) ? <CopyButton text={invite} words={t('today.copy')} testId="copy-invite" /> : null} />
                    <ControlBar call={call} chatOpen={chat} unread={unread} onChat={() => setChat((open) => !open)}
                      {...(leads || me === null ? {} : { onLeave: () => colleague.mutate({ leave: me }) })} />
                  </>
                )}
              </div>
              <Note visit={id} author={bareId(user.id)} />
            </div>
          }
          right={<Chart patient={patient} name={visit.guest.name} />} />
        {chat ? (
          <aside className="cs-chat">
            {thread ? <ChatPanel thread={thread} title={visit.guest.name} token={hub.token} onClose={() => setChat(false)} closed={over} /> : <Skeleton />}
          </aside>
        ) : null}
      </div>
      <EndDialog open={ending} name={visit.guest.name} busy={act.isPending} onClose={() => setEnding(false)} onEnd={() => run('end')} />
      <KeysDialog open={keys} onClose={() => setKeys(false)} />
    </div>
  );
}
