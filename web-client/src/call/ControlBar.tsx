// The controls of the call. Every control has a word or a label, its state as text, and 44 px.
import { useState } from 'react';
import type { Call } from '../core/media/call';
import { Icon, type IconName } from '../ui/Icon';
import { useMaybe, useT } from '../ui/store';

export function ControlBar({ call, chatOpen, unread, onChat, onLeave, large = false }: {
  call: Call | null; chatOpen: boolean; unread: number; onChat?: () => void; onLeave?: () => void; large?: boolean;
}) {
  const t = useT();
  const state = useMaybe(call?.state);
  const [trouble, setTrouble] = useState(false);
  const micOn = state?.micOn ?? true;
  const cameraOn = state?.cameraOn ?? true;
  const camera = async () => setTrouble((await call?.setCamera(!cameraOn)) === false && !cameraOn);
  return (
    <div className="controls" data-large={large || undefined} role="toolbar" aria-label={t('call.controls')}>
      {trouble ? <p className="controls-trouble" role="alert">{t('call.no_camera')}</p> : null}
      <Control icon={micOn ? 'mic' : 'micOff'} label={micOn ? t('call.mute') : t('call.unmute')} off={!micOn} disabled={!state?.hasMic}
        onClick={() => void call?.setMic(!micOn)} testId="toggle-mic" />
      <Control icon={cameraOn ? 'camera' : 'cameraOff'} label={cameraOn ? t('call.camera_stop') : t('call.camera_start')} off={!cameraOn} disabled={!state}
        onClick={() => void camera()} testId="toggle-camera" />
      {onChat ? <Control icon="chat" label={t('call.chat')} pressed={chatOpen} onClick={onChat} testId="toggle-chat" badge={unread} /> : null}
      {onLeave ? <Control icon="leave" label={t('call.leave')} danger onClick={onLeave} testId="leave" /> : null}
    </div>
  );
}

function Control({ icon, label, onClick, testId, off = false, danger = false, disabled = false, pressed, badge = 0 }: {
  icon: IconName; label: string; onClick: () => void; testId: string; off?: boolean; danger?: boolean; disabled?: boolean; pressed?: boolean; badge?: number;
}) {
  const t = useT();
  return (
    <button type="button" className="control" data-off={off || undefined} data-danger={danger || undefined} onClick={onClick}
      disabled={disabled} aria-pressed={pressed} data-testid={testId} title={label}>
      <span className="control-icon"><Icon name={icon} size={24} />{badge > 0 ? <b className="control-badge num">{badge}<span className="sr-only"> {t('chat.unread', { count: badge })}</span></b> : null}</span>
      <span className="control-label">{label}</span>
    </button>
  );
}
