// The frame of the signed-in app: navigation by role, the state of the connection, and signing in again in place.
import { Link, Outlet, useNavigate } from '@tanstack/react-router';
import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { identity } from '../../core/api/endpoints';
import type { MessageKey } from '../../core/i18n/i18n';
import { playTestSound } from '../../core/media/devices';
import { has } from '../../core/session/hub';
import { Icon, type IconName } from '../../ui/Icon';
import { Brand } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub, useUser } from '../hub';
import { arrivalSound, useOpenVisits, waitingOf } from '../visits';
import { BackToVisit } from './BackToVisit';
import { ConnectionBanner } from './ConnectionBanner';
import { Notices } from './Notices';
import { Reauth } from './Reauth';
import { UserMenu } from './UserMenu';

interface Entry { to: '/app/today' | '/app/queue' | '/app/board' | '/app/audit' | '/app/access'; icon: IconName; label: MessageKey }
const CLINICIAN: readonly Entry[] = [
  { to: '/app/today', icon: 'today', label: 'nav.today' },
  { to: '/app/queue', icon: 'queue', label: 'nav.queue' },
];
const BOARD: Entry = { to: '/app/board', icon: 'board', label: 'nav.board' };
const AUDIT: Entry = { to: '/app/audit', icon: 'shield', label: 'nav.audit' };

const ACCESS: Entry = { to: '/app/access', icon: 'door', label: 'nav.access' };

export function Shell() {
  const t = useT();
  const user = useUser();
  const navigate = useNavigate();
  const clinician = has(user, 'clinician');
  const { data: me } = useQuery({ queryKey: ['me'], queryFn: () => identity.me(hub.api), staleTime: Infinity, enabled: user !== null });
  const entries = [...(clinician ? CLINICIAN : []), ...(has(user, 'clinician', 'staff', 'admin') ? [BOARD] : []), ...(has(user, 'admin') ? [AUDIT, ACCESS] : [])];

  useEffect(() => { if (!user) void navigate({ to: '/' }); }, [user, navigate]);
  if (!user) return null;

  return (
    <div className="shell">
      <a className="skip" href="#content">{t('app.skip')}</a>
      <nav className="nav" aria-label={t('nav.main')}>
        <Brand name={me?.tenant.name ?? null} />
        <ul>
          {entries.map((entry) => (
            <li key={entry.to}>
              <Link to={entry.to} className="nav-link" title={t(entry.label)} activeProps={{ 'aria-current': 'page' }} data-testid={`nav-${entry.to.slice(5)}`}>
                <Icon name={entry.icon} /><span>{t(entry.label)}</span>{entry.to === '/app/queue' ? <WaitingCount /> : null}
              </Link>
            </li>
          ))}
          <li><Notices /></li>
        </ul>
        <UserMenu user={user} />
      </nav>
      <div className="shell-main">
        <ConnectionBanner />
        {clinician ? <BackToVisit /> : null}
        <main id="content" className="content" tabIndex={-1}><Outlet /></main>
      </div>
      <Reauth />
    </div>
  );
}

function WaitingCount() {
  const t = useT();
  const { data } = useOpenVisits(() => { if (arrivalSound.get()) playTestSound().catch(() => undefined); });
  const count = waitingOf(data?.visits ?? []).length;
  return count === 0 ? null : <b className="nav-count num" data-testid="nav-waiting">{count}<span className="sr-only"> {t('queue.waiting')}</span></b>;
}
