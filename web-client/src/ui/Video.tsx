// A picture of somebody: a plain track before the call, a track of the call afterwards.
import { useEffect, useRef } from 'react';

/** What livekit-client's tracks offer; attaching through it lets the engine choose the layer by the size on screen. */
export interface Attachable { attach: (element: HTMLMediaElement) => unknown; detach: (element: HTMLMediaElement) => unknown }

export function Video({ track, mirror = false, label, testId, fit = 'cover' }: {
  track: MediaStreamTrack | Attachable; mirror?: boolean; label: string; testId?: string; fit?: 'cover' | 'contain';
}) {
  const ref = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    if ('attach' in track) {
      track.attach(element);
      return () => { track.detach(element); };
    }
    element.srcObject = new MediaStream([track]);
    element.play().catch(() => undefined);
    return () => { element.srcObject = null; };
  }, [track]);
  return <video ref={ref} className="video" data-mirror={mirror || undefined} data-fit={fit} data-testid={testId} aria-label={label} autoPlay playsInline muted />;
}

/** The sound of somebody. Has no face of its own. */
export function Sound({ track }: { track: Attachable }) {
  const ref = useRef<HTMLAudioElement>(null);
  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    track.attach(element);
    return () => { track.detach(element); };
  }, [track]);
  return <audio ref={ref} autoPlay data-testid="remote-audio" />;
}
