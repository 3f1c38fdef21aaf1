// Choosing another camera or microphone, where there is more than one. The choice is kept for the next visit.
import { useEffect, useState } from 'react';
import { chosenDevices, listDevices, type Choices, type Preview } from '../core/media/devices';
import { useT } from '../ui/store';

export function DevicePicker({ preview, onChange }: { preview: Preview; onChange: () => void }) {
  const t = useT();
  const [choices, setChoices] = useState<Choices>({ cameras: [], microphones: [] });
  useEffect(() => {
    let gone = false;
    const look = () => void listDevices().then((found) => { if (!gone) setChoices(found); });
    look();
    navigator.mediaDevices?.addEventListener?.('devicechange', look);
    return () => { gone = true; navigator.mediaDevices?.removeEventListener?.('devicechange', look); };
  }, [preview]);
  const pick = (choice: Parameters<typeof chosenDevices.write>[0]) => { chosenDevices.write(choice); onChange(); };
  return (
    <>
      {preview.video && choices.cameras.length > 1 ? (
        <Picker label={t('visit.devices.camera')} options={choices.cameras} value={preview.video.getSettings().deviceId ?? ''} onPick={(camera) => pick({ camera })} testId="pick-camera" />
      ) : null}
      {preview.audio && choices.microphones.length > 1 ? (
        <Picker label={t('visit.devices.microphone')} options={choices.microphones} value={preview.audio.getSettings().deviceId ?? ''} onPick={(microphone) => pick({ microphone })} testId="pick-microphone" />
      ) : null}
    </>
  );
}

function Picker({ label, options, value, onPick, testId }: { label: string; options: MediaDeviceInfo[]; value: string; onPick: (id: string) => void; testId: string }) {
  return (
    <label className="picker">
      <span>{label}</span>
      <select className="select" value={value} onChange={(e) => onPick(e.target.value)} data-testid={testId}>
        {options.map((d) => <option key={d.deviceId} value={d.deviceId}>{d.label}</option>)}
      </select>
    </label>
  );
}
