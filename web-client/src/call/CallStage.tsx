// The picture of the call: the other person, oneself in the corner, and every state of the connection in words.
import { useEffect, useState, type ReactNode } from 'react';
import type { Person } from '../core/api/types';
import type { Call, CallState } from '../core/media/call';
import { millis, stopwatch } from '../core/time/time';
import { Icon } from '../ui/Icon';
import { Avatar, Button, Spinner } from '../ui/parts';
import { useMaybe, useNow, useT } from '../ui/store';
import { Sound, Video } from '../ui/Video';
import { CallDevices } from './CallDevices';
import './call.css';

export function CallStage({ call, other, since, idle, help, also = [] }: {
  call: Call | null; other: Person; since: string | null; idle?: string | null; /** What can be done while nobody is there. */ help?: ReactNode;
  /** Others who take part, whether their picture is there or not. */ also?: readonly Person[];
}) {
  const t = useT();
  const state = useMaybe(call?.state);
  const remote = state?.remotes.find((r) => r.identity === other.subject) ?? state?.remotes.find((r) => r.video ?? r.audio) ?? state?.remotes[0] ?? null;
  const others = (state?.remotes ?? []).filter((r) => r !== remote && r.video !== null);
  const [met, setMet] = useState(false);
  useEffect(() => { if (remote !== null) setMet(true); }, [remote]);
  return (
    <div className="stage" data-testid="stage" data-phase={state?.phase ?? 'idle'} data-can-publish={state?.canPublish ?? false}>
      {remote?.video ? <Video track={remote.video} label={t('call.video_of', { name: other.name })} testId="remote-video" /> : (
        <div className="stage-face"><Avatar name={other.name} size="xl" /><p>{stageText(t, state, remote !== null, met, other.name, idle ?? null)}</p>{remote === null ? help : null}</div>
      )}
      {others.length > 0 ? (
        <div className="stage-others">
          {others.map((r) => (r.video ? <figure key={r.identity}><Video track={r.video} label={t('call.video_of', { name: r.name })} testId="other-video" /><figcaption>{r.name}</figcaption></figure> : null))}
        </div>
      ) : null}
      {state?.remotes.map((r) => (r.audio ? <Sound key={r.identity} track={r.audio} /> : null))}
      <div className="stage-top">
        <span className="stage-name">
          {remote?.muted && (remote.video ?? remote.audio) ? <Icon name="micOff" size={16} /> : null}{other.name}
        </span>
        {also.length > 0 ? <span className="stage-pill" data-testid="also-here"><Icon name="info" size={15} />{t('call.also', { names: also.map((p) => p.name).join(', ') })}</span> : null}
        {since ? <Timer since={since} /> : null}
        {remote && remote.quality !== 'good' ? <span className="stage-pill" data-tone="warn"><Icon name="alert" size={15} />{t('call.weak')}</span> : null}
        {call && state && (state.hasMic || state.hasCamera) ? <CallDevices call={call} state={state} /> : null}
      </div>
      {state?.phase === 'reconnecting' ? <Reconnecting since={state.since} /> : null}
      {state?.phase === 'failed' ? (
        <div className="stage-banner" role="alert"><span>{t('call.failed')}</span><Button size="s" icon="retry" onClick={() => call?.retry()}>{t('common.retry')}</Button></div>
      ) : null}
      {state?.phase === 'replaced' ? (
        <div className="stage-banner" role="alert"><span>{t('call.replaced')}</span><Button size="s" onClick={() => call?.retry()}>{t('call.use_here')}</Button></div>
      ) : null}
      {state?.phase === 'refused' ? <div className="stage-banner" role="alert" data-testid="call-refused"><span>{t('call.refused')}</span></div> : null}
      {state?.audioBlocked ? (
        <button type="button" className="stage-unblock" onClick={() => void call?.startAudio()} data-testid="start-audio"><Icon name="speaker" size={28} /><span>{t('call.start_audio')}</span></button>
      ) : null}
      <div className="self" data-off={!(state?.localVideo && state.cameraOn) || undefined}>
        {state?.localVideo && state.cameraOn ? <Video track={state.localVideo} mirror label={t('call.self_view')} testId="self-view" /> : <Icon name="cameraOff" size={24} />}
        {state && !state.micOn ? <span className="self-muted"><Icon name="micOff" size={15} /><span className="sr-only">{t('call.you_muted')}</span></span> : null}
      </div>
    </div>
  );
}

function stageText(t: ReturnType<typeof useT>, state: CallState | null, present: boolean, met: boolean, name: string, idle: string | null): string {
  if (idle !== null) return idle;
  if (!state || state.phase === 'idle' || state.phase === 'connecting') return t('call.connecting');
  if (!present) return t(met ? 'call.gone' : 'call.not_here', { name });
  return t('call.camera_off', { name });
}

function Reconnecting({ since }: { since: number }) {
  const t = useT();
  const now = useNow(1000);
  return (
    <div className="stage-banner" role="status" data-testid="call-reconnecting"><Spinner /><span className="sr-only">{t('call.reconnecting_said')}</span><span aria-hidden="true">{t('call.reconnecting', { seconds: Math.max(0, Math.round((now - since) / 1000)) })}</span></div>
  );
}

function Timer({ since }: { since: string }) {
  const now = useNow(1000);
  const start = millis(since);
  return start === null ? null : <span className="stage-time num">{stopwatch(now - start)}</span>;
}
