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
      // The seconds are for the eye: said aloud each second they would drown everything else.
      <div className="conn" data-state="reconnecting" role="status" data-testid="connection-banner">
        <Spinner /><span className="sr-only">{t('call.reconnecting_said')}</span><span aria-hidden="true">{t('conn.reconnecting', { age: age(now - state.since, language) })}</span>{changes}
      </div>
    );
  }
  return null;
}
