// Telling a waiting patient that it is time: a chime, a buzz, the tab's title; and a screen that stays awake.
import { useEffect, useRef } from 'react';
import { playTestSound } from '../core/media/devices';
import { useT } from '../ui/store';

export function useGetReady(waiting: boolean): void {
  const t = useT();
  const was = useRef(waiting);
  useEffect(() => {
    document.title = waiting ? t('visit.waiting.tab') : t('visit.title');
    if (was.current && !waiting) {
      playTestSound().catch(() => undefined);
      navigator.vibrate?.([120, 80, 120]);
    }
    was.current = waiting;
  }, [waiting, t]);

  useEffect(() => {
    let lock: WakeLockSentinel | null = null;
    let gone = false;
    const hold = () => {
      if (document.hidden || !('wakeLock' in navigator)) return;
      navigator.wakeLock.request('screen').then((got) => {
        if (gone) void got.release();
        else lock = got;
      }, () => undefined);
    };
    hold();
    document.addEventListener('visibilitychange', hold);
    return () => { gone = true; document.removeEventListener('visibilitychange', hold); void lock?.release(); };
  }, []);
}
