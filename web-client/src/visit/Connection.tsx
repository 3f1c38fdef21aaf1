// One line for a patient when the live connection is lost. Says what is safe.
import type { Live } from '../core/live/live';
import { Notice } from '../ui/parts';
import { useMaybe, useNow, useOnline, useT } from '../ui/store';

/** A blink of the network needs no words. */
const QUIET_MS = 2000;

export function Connection({ live }: { live: Live | null }) {
  const t = useT();
  const state = useMaybe(live?.state);
  const now = useNow(1000);
  const online = useOnline();
  if (!online) return <Notice tone="warn" testId="connection-banner" title={t('visit.offline')}>{t('visit.offline_text')}</Notice>;
  if (state?.at !== 'reconnecting' || now - state.since < QUIET_MS) return null;
  return <Notice tone="warn" testId="connection-banner" title={t('visit.reconnecting')}>{t('visit.place_safe')}</Notice>;
}
