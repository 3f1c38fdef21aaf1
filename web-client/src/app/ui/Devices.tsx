// The result of a patient's device check: three small icons that also say it in words.
import type { DeviceCheck, DeviceState } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { Icon, type IconName } from '../../ui/Icon';
import { useT } from '../../ui/store';

const STATE: Record<DeviceState, MessageKey> = { ok: 'device.ok', denied: 'device.denied', missing: 'device.missing', skipped: 'device.skipped' };

export function Devices({ check }: { check: DeviceCheck | null | undefined }) {
  const t = useT();
  if (!check) return <span className="muted small">{t('device.unchecked')}</span>;
  const items: ReadonlyArray<[IconName, MessageKey, DeviceState]> = [
    [check.camera === 'ok' ? 'camera' : 'cameraOff', 'device.camera', check.camera],
    [check.microphone === 'ok' ? 'mic' : 'micOff', 'device.microphone', check.microphone],
    ['speaker', 'device.speaker', check.speaker],
  ];
  return (
    <span className="devices">
      {items.map(([icon, name, state]) => {
        const words = t('device.state', { device: t(name), state: t(STATE[state]) });
        return <span key={name} className="device" data-state={state} title={words}><Icon name={icon} size={17} /><span className="sr-only">{words}</span></span>;
      })}
    </span>
  );
}
