// A staff session ends after the clinic's time of silence: said a minute before, with the seconds that are left.
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { identity } from '../../core/api/endpoints';
import { Idle } from '../../core/session/idle';
import { Button } from '../../ui/parts';
import { useMaybe, useT } from '../../ui/store';
import { hub } from '../hub';

const MOVES = ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchstart'] as const;
const WARN_MS = 60_000;

/** Calls that stand: who listens for a quarter of an hour is not away. */
let calls = 0;
export function holdIdle(): () => void {
  calls += 1;
  let held = true;
  return () => { if (held) { held = false; calls -= 1; } };
}

export function IdleWarning() {
  const t = useT();
  const { data: me } = useQuery({ queryKey: ['me'], queryFn: () => identity.me(hub.api), staleTime: Infinity });
  const minutes = me?.session?.idle_minutes;
  const [idle, setIdle] = useState<Idle | null>(null);
  useEffect(() => {
    if (!minutes) return;
    const limitMs = minutes * 60_000;
    const made = new Idle({
      limitMs, warnMs: Math.min(WARN_MS, limitMs / 2), now: () => Date.now(), held: () => calls > 0,
      ping: () => void identity.me(hub.api).catch(() => undefined),
      end: () => void hub.signOut().then(() => hub.left.set('idle')),
    });
    const moved = () => made.moved();
    for (const move of MOVES) window.addEventListener(move, moved, { passive: true, capture: true });
    const timer = setInterval(() => made.tick(), 1000);
    setIdle(made);
    return () => {
      clearInterval(timer);
      for (const move of MOVES) window.removeEventListener(move, moved, { capture: true });
      setIdle(null);
    };
  }, [minutes]);
  const left = useMaybe(idle?.left);
  return (
    <ModalOverlay className="overlay" isOpen={left !== null} isKeyboardDismissDisabled>
      <Modal className="modal">
        <Dialog className="dialog" role="alertdialog" data-testid="idle-warning">
          <Heading slot="title">{t('idle.title')}</Heading>
          <p>{t('idle.text')}</p>
          <p className="idle-left num" aria-hidden="true">{Math.ceil((left ?? 0) / 1000)}</p>
          <div className="dialog-acts">
            <Button variant="ghost" onClick={() => void hub.signOut()}>{t('menu.sign_out')}</Button>
            <Button variant="primary" onClick={() => idle?.stay()} data-testid="idle-stay">{t('idle.stay')}</Button>
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
