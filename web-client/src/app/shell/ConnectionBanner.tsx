// Says how fresh the screen is: reconnecting since when, offline, changes waiting. Silent while all is well.
import { waitingChanges } from '../../core/chat/outbox';
import { age } from '../../core/time/time';
import { Icon } from '../../ui/Icon';
import { Spinner } from '../../ui/parts';
import { useLanguage, useMaybe, useNow, useOnline, useStore, useT } from '../../ui/store';
import { hub } from '../hub';

const QUIET_MS = 1500;

export function ConnectionBanner() {
  const t = useT();
  const language = useLanguage();
  const online = useOnline();
  const state = useMaybe(useStore(hub.live)?.state);
  const waiting = useStore(waitingChanges);
  const now = useNow(1000);
  const changes = waiting > 0 ? ` ${t('conn.changes', { count: waiting })}` : '';
  if (!online) {
    return <div className="conn" data-state="offline" role="status" data-testid="connection-banner"><Icon name="alert" size={18} />{t('conn.offline')}{changes}</div>;
  }
  if (state?.at === 'reconnecting' && now - state.since > QUIET_MS) {
    return (
      <div className="conn" data-state="reconnecting" role="status" data-testid="connection-banner">
        <Spinner />{t('conn.reconnecting', { age: age(now - state.since, language) })}{changes}
      </div>
    );
  }
  return null;
}
