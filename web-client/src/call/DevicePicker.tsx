// What cameras, microphones and speakers there are, and the choice of one: before the visit and in the middle of it.
import { useEffect, useState } from 'react';
import { listDevices, type Choices } from '../core/media/devices';

const NONE: Choices = { cameras: [], microphones: [], speakers: [] };

/** Follows what is plugged in and out. `key` changes when names may have become known. */
export function useDevices(key: unknown): Choices {
  const [choices, setChoices] = useState<Choices>(NONE);
  useEffect(() => {
    let gone = false;
    const look = () => void listDevices().then((found) => { if (!gone) setChoices(found); });
    look();
    navigator.mediaDevices?.addEventListener?.('devicechange', look);
    return () => { gone = true; navigator.mediaDevices?.removeEventListener?.('devicechange', look); };
  }, [key]);
  return choices;
}

export function Picker({ label, options, value, onPick, testId, disabled = false }: {
  label: string; options: readonly MediaDeviceInfo[]; value: string; onPick: (id: string) => void; testId: string; disabled?: boolean;
}) {
  return (
    <label className="picker">
      <span>{label}</span>
      <select className="select" value={value} onChange={(e) => onPick(e.target.value)} disabled={disabled} data-testid={testId}>
        {options.map((d) => <option key={d.deviceId} value={d.deviceId}>{d.label}</option>)}
      </select>
    </label>
  );
}
