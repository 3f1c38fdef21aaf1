// Two parts and a handle between them: by pointer, or with the arrow keys. The share is kept on this device.
import { useRef, useState, type KeyboardEvent, type PointerEvent, type ReactNode } from 'react';
import { device } from '../../core/store/keep';

const KEY = 'medtech.split';
const MIN = 28;
const MAX = 72;
const clamp = (share: number) => Math.round(Math.min(MAX, Math.max(MIN, share)));

export function Split({ left, right, label }: { left: ReactNode; right: ReactNode; label: string }) {
  const box = useRef<HTMLDivElement>(null);
  const [share, setShare] = useState(() => clamp(device.read<number>(KEY) ?? 54));
  const keep = (next: number) => { setShare(clamp(next)); device.write(KEY, clamp(next)); };
  const move = (event: PointerEvent) => {
    if (!event.currentTarget.hasPointerCapture(event.pointerId) || !box.current) return;
    const area = box.current.getBoundingClientRect();
    keep(((event.clientX - area.left) / area.width) * 100);
  };
  const key = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: MIN - share, End: MAX - share }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    keep(share + step);
  };
  return (
    <div className="split" ref={box} style={{ '--share': `${share}fr`, '--rest': `${100 - share}fr` } as React.CSSProperties}>
      {left}
      {/* A focusable separator is a widget by ARIA 1.2 (window splitter pattern). */}
      <div className="split-handle" role="separator" tabIndex={0} aria-orientation="vertical" aria-label={label} aria-valuenow={share} aria-valuemin={MIN} aria-valuemax={MAX}
        onPointerDown={(e) => e.currentTarget.setPointerCapture(e.pointerId)} onPointerMove={move} onKeyDown={key} data-testid="split-handle" />
      {right}
    </div>
  );
}
