// A board on a wall must never show old news as if they were new.
import { clockTime } from '../../core/time/time';
import { Notice } from '../../ui/parts';
import { useLanguage, useMaybe, useNow, useOnline, useStore, useT } from '../../ui/store';
import { hub } from '../hub';

const QUIET_MS = 3000;

export function Stale({ updatedAt }: { updatedAt: number }) {
  const t = useT();
  const language = useLanguage();
  const online = useOnline();
  const state = useMaybe(useStore(hub.live)?.state);
  const now = useNow(1000);
  const lost = state?.at === 'expired' || (state?.at === 'reconnecting' && now - state.since > QUIET_MS);
  if (online && !lost) return null;
  const since = state?.at === 'reconnecting' ? state.since : updatedAt;
  return <Notice tone="warn" testId="stale-banner" title={t('board.stale')}>{t('board.stale_text', { time: clockTime(since || now, language) })}</Notice>;
}
