// Another camera, microphone or speaker in the middle of the call, without leaving it.
import { useEffect, useRef, useState } from 'react';
import type { Call, CallState, DeviceKind } from '../core/media/call';
import { Icon } from '../ui/Icon';
import { Notice } from '../ui/parts';
import { useT } from '../ui/store';
import { Picker, useDevices } from './DevicePicker';

export function CallDevices({ call, state }: { call: Call; state: CallState }) {
  const t = useT();
  const [open, setOpen] = useState(false);
  const [failed, setFailed] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const { cameras, microphones, speakers } = useDevices(open);

  useEffect(() => {
    if (!open) return;
    box.current?.querySelector('select')?.focus();
    const away = (event: PointerEvent) => { if (!box.current?.contains(event.target as Node)) setOpen(false); };
    // Before anybody else hears it: Escape closes only this, not the chat behind it.
    const key = (event: KeyboardEvent) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      setOpen(false);
      box.current?.querySelector('button')?.focus();
    };
    window.addEventListener('pointerdown', away);
    window.addEventListener('keydown', key, true);
    return () => { window.removeEventListener('pointerdown', away); window.removeEventListener('keydown', key, true); };
  }, [open]);

  const pick = async (kind: DeviceKind, id: string) => {
    setFailed(false);
    setFailed(!(await call.takeDevice(kind, id)));
  };
  return (
    <div className="call-devices" ref={box}>
      <button type="button" className="stage-btn" aria-expanded={open} aria-label={t('call.devices')} title={t('call.devices')} onClick={() => { setFailed(false); setOpen(!open); }} data-testid="call-devices">
        <Icon name="settings" />
      </button>
      {open ? (
        <div className="device-panel" role="group" aria-label={t('call.devices')} data-testid="device-panel">
          {failed ? <Notice tone="danger">{t('call.device_failed')}</Notice> : null}
          {state.hasCamera && cameras.length > 0 ? <Picker label={t('device.camera')} options={cameras} value={state.devices.camera ?? ''} disabled={!state.cameraOn} onPick={(id) => void pick('camera', id)} testId="call-camera" /> : null}
          {state.hasMic && microphones.length > 0 ? <Picker label={t('device.microphone')} options={microphones} value={state.devices.microphone ?? ''} onPick={(id) => void pick('microphone', id)} testId="call-microphone" /> : null}
          {speakers.length > 0 ? <Picker label={t('device.speaker')} options={speakers} value={state.devices.speaker ?? speakers[0]?.deviceId ?? ''} onPick={(id) => void pick('speaker', id)} testId="call-speaker" /> : null}
        </div>
      ) : null}
    </div>
  );
}
