// Choosing another camera or microphone before the visit, where there is more than one. The choice is kept for the next visit.
import { chosenDevices, type Preview } from '../core/media/devices';
import { Picker, useDevices } from '../call/DevicePicker';
import { useT } from '../ui/store';

export function DevicePicker({ preview, onChange }: { preview: Preview; onChange: () => void }) {
  const t = useT();
  const { cameras, microphones } = useDevices(preview);
  const pick = (choice: Parameters<typeof chosenDevices.write>[0]) => { chosenDevices.write(choice); onChange(); };
  return (
    <>
      {preview.video && cameras.length > 1 ? (
        <Picker label={t('device.camera')} options={cameras} value={preview.video.getSettings().deviceId ?? ''} onPick={(camera) => pick({ camera })} testId="pick-camera" />
      ) : null}
      {preview.audio && microphones.length > 1 ? (
        <Picker label={t('device.microphone')} options={microphones} value={preview.audio.getSettings().deviceId ?? ''} onPick={(microphone) => pick({ microphone })} testId="pick-microphone" />
      ) : null}
    </>
  );
}
