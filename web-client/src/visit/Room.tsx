// Waiting room and consultation: one call that stays connected while the patient is moved between the two.
import { useEffect, useRef, useState } from 'react';
import { visits } from '../core/api/endpoints';
import type { Visit } from '../core/api/types';
import type { Thread } from '../core/chat/thread';
import type { Live } from '../core/live/live';
import type { Call } from '../core/media/call';
import { askForDevices, type Preview } from '../core/media/devices';
import { tab } from '../core/store/keep';
import type { GuestVisit } from '../core/visit/guest';
import { Consult } from './Consult';
import { AUDIO_ONLY } from './DeviceCheck';
import { useGetReady } from './ready';
import { Waiting } from './Waiting';

export function Room({ guest, visit, clinic, live, thread, preview }: {
  guest: GuestVisit; visit: Visit; clinic: string | null; live: Live | null; thread: Thread | null; preview: Preview;
}) {
  const call = useCall(guest, visit.id, preview);
  const waiting = visit.state === 'waiting';
  useGetReady(waiting);
  if (waiting) return <Waiting visit={visit} clinic={clinic} live={live} thread={thread} call={call} onLeave={() => void guest.leave()} />;
  return <Consult visit={visit} live={live} thread={thread} call={call} onLeave={() => void guest.leave()} />;
}

/** Opens the call once for this stay; after a reload the devices are asked for again, mostly without a question. */
function useCall(guest: GuestVisit, visitId: string, preview: Preview): Call | null {
  const [call, setCall] = useState<Call | null>(null);
  const first = useRef(preview);
  useEffect(() => {
    let opened: Call | null = null;
    let gone = false;
    const open = async () => {
      const audioOnly = tab.read<boolean>(AUDIO_ONLY) ?? false;
      const kept = first.current;
      const usable = (kept.audio ?? kept.video)?.readyState === 'live';
      const [{ Call: MediaCall }, devices] = await Promise.all([
        import('../core/media/call'),
        usable ? kept : askForDevices(!audioOnly).then((access) => access.preview),
      ]);
      if (gone) { devices.audio?.stop(); devices.video?.stop(); return; }
      opened = new MediaCall(() => visits.media(guest.api, visitId), devices, { micOn: true, cameraOn: true });
      setCall(opened);
      void opened.start();
    };
    // Waits a turn: React's strict mode mounts twice, and a camera should be taken once.
    const timer = setTimeout(() => void open(), 0);
    return () => { gone = true; clearTimeout(timer); void opened?.close(); setCall(null); };
  }, [guest, visitId]);
  return call;
}
