// The microphone's level as moving bars; says in words once that the patient is heard.
import { useEffect, useRef, useState } from 'react';
import { measureLevel } from '../core/media/devices';
import { useT } from '../ui/store';

const BARS = 14;
const HEARD = 0.35;

export function Level({ track }: { track: MediaStreamTrack }) {
  const t = useT();
  const bars = useRef<HTMLSpanElement>(null);
  const [heard, setHeard] = useState(false);
  useEffect(() => measureLevel(track, (level) => {
    if (level > HEARD) setHeard(true);
    const lit = Math.round(level * BARS);
    for (const [index, bar] of Array.from(bars.current?.children ?? []).entries()) bar.toggleAttribute('data-on', index < lit);
  }), [track]);
  return (
    <span className="level">
      <span className="level-text" role="status" data-testid="mic-heard" data-heard={heard}>{heard ? t('visit.devices.mic_heard') : t('visit.devices.mic_speak')}</span>
      <span className="level-bars" ref={bars} aria-hidden="true">{Array.from({ length: BARS }, (_, i) => <i key={i} />)}</span>
    </span>
  );
}
