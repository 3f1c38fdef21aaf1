// The clinician's call and conversation, for as long as the page of the visit is open.
import { useEffect, useState } from 'react';
import { identity, visits } from '../../core/api/endpoints';
import { Thread } from '../../core/chat/thread';
import type { Call } from '../../core/media/call';
import { askForDevices } from '../../core/media/devices';
import { tab } from '../../core/store/keep';
import { ownKeeper } from '../../core/store/sealed';
import { subjectOf } from '../../core/session/hub';
import { useStore } from '../../ui/store';
import { hub, queries, useUser } from '../hub';
import { holdIdle } from '../shell/IdleWarning';

/** Whether microphone and camera were on, so that a reload in the middle of a visit brings no surprise. */
const CHOICE = 'medtech.call.choice';
interface Choice { micOn: boolean; cameraOn: boolean }

export function useHostCall(visit: string, wanted: boolean): Call | null {
  const [call, setCall] = useState<Call | null>(null);
  useEffect(() => {
    if (!wanted) return;
    let opened: Call | null = null;
    let unwatch: () => void = () => undefined;
    let gone = false;
    const release = holdIdle();
    const open = async () => {
      const choice = tab.read<Choice>(CHOICE) ?? { micOn: true, cameraOn: true };
      const [{ Call: Room }, access] = await Promise.all([import('../../core/media/call'), askForDevices(true)]);
      if (gone) { access.preview.audio?.stop(); access.preview.video?.stop(); return; }
      opened = new Room(() => visits.media(hub.api, visit), access.preview, choice);
      const made = opened;
      unwatch = made.state.subscribe(() => {
        const { micOn, cameraOn, hasMic, hasCamera, phase } = made.state.get();
        if (phase !== 'closed') tab.write(CHOICE, { micOn: micOn || !hasMic, cameraOn: cameraOn || !hasCamera } satisfies Choice);
      });
      setCall(made);
      void made.start();
    };
    const timer = setTimeout(() => void open(), 0);
    return () => { gone = true; release(); clearTimeout(timer); unwatch(); void opened?.close(); setCall(null); };
  }, [visit, wanted]);
  return call;
}

export function useThread(conversation: string | null): Thread | null {
  const live = useStore(hub.live);
  const user = useUser();
  const own = user ? subjectOf(user) : null;
  const [thread, setThread] = useState<Thread | null>(null);
  useEffect(() => {
    if (!live || own === null || conversation === null) return;
    let opened: Thread | null = null;
    let gone = false;
    // What waits to be sent is clinical: it lies in the tab sealed, as drafts of notes do on the device.
    void ownKeeper(tab, () => queries.fetchQuery({ queryKey: ['device-key', own], queryFn: () => identity.deviceKey(hub.api), staleTime: Infinity })).then((keep) => {
      if (gone) return;
      opened = new Thread(conversation, own, hub.api, live, keep);
      setThread(opened);
    });
    return () => { gone = true; opened?.close(); setThread(null); };
  }, [live, own, conversation]);
  return thread;
}
