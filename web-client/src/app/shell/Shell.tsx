// The frame of the signed-in app: navigation by role, the state of the connection, and signing in again in place.
import { Link, Outlet, useNavigate, useRouterState } from '@tanstack/react-router';
import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { identity } from '../../core/api/endpoints';
import type { MessageKey } from '../../core/i18n/i18n';
import { playTestSound } from '../../core/media/devices';
import { has } from '../../core/session/hub';
import { Icon, type IconName } from '../../ui/Icon';
import { Brand } from '../../ui/parts';
import { useStore, useT } from '../../ui/store';
import { account } from '../account/api';
import { useOwnLook } from './useOwnLook';
import { hub, useUser } from '../hub';
import { arrivalSound, useOpenVisits, waitingOf } from '../visits';
import { BackToVisit } from './BackToVisit';
import { ConnectionBanner } from './ConnectionBanner';
import { IdleWarning } from './IdleWarning';
import { NoAccess } from './NoAccess';
import { Notices } from './Notices';
import { Reauth } from './Reauth';
import { StepUp } from '../stepup/StepUp';
import { UserMenu } from './UserMenu';

type Place = '/app/today' | '/app/queue' | '/app/board' | '/app/audit' | '/app/admin/people' | '/app/account/privacy';
interface Entry { to: Place; icon: IconName; label: MessageKey; /** Pages that belong to it, too. */ near?: readonly string[] }
const CLINICIAN: readonly Entry[] = [
  { to: '/app/today', icon: 'today', label: 'nav.today' },
  { to: '/app/queue', icon: 'queue', label: 'nav.queue' },
];
const BOARD: Entry = { to: '/app/board', icon: 'board', label: 'nav.board' };
const ADMIN: readonly Entry[] = [
  { to: '/app/audit', icon: 'shield', label: 'nav.audit' },
  { to: '/app/admin/people', icon: 'settings', label: 'nav.admin', near: ['/app/admin', '/app/access', '/app/clients'] },
];
/** What only administrators have; the server refuses everybody else, and the frame of it is not shown for nothing. */
const OFFICE = ['/app/admin', '/app/access', '/app/clients', '/app/audit'];
const PRIVACY: Entry = { to: '/app/account/privacy', icon: 'shield', label: 'account.privacy' };

export function Shell() {
  const t = useT();
  const user = useUser();
  const navigate = useNavigate();
  const clinician = has(user, 'clinician');
  const { data: me } = useQuery({ queryKey: ['me'], queryFn: () => identity.me(hub.api), staleTime: Infinity, enabled: user !== null });
  const entries = [...(clinician ? CLINICIAN : []), ...(has(user, 'clinician', 'staff', 'admin') ? [BOARD] : []), ...(has(user, 'admin') ? ADMIN : []), ...(has(user, 'patient') ? [PRIVACY] : [])];

  const here = useRouterState({ select: (state) => state.location.pathname });
  const enrol = useStore(hub.enrol);
  useEffect(() => { if (!user) void navigate({ to: '/' }); }, [user, navigate]);
  // Somebody who was asked in first says how they will sign in from now on.
  const { data: own } = useQuery({ queryKey: ['profile'], queryFn: () => account.profile(hub.api), staleTime: Infinity, enabled: user !== null });
  useEffect(() => { if (own?.invited) void navigate({ to: '/app/account/welcome' }); }, [own?.invited, navigate]);
  useOwnLook(user?.id, own);
  // The clinic asks for a second step before clinical data: after that there is nothing else to do first.
  const enter = enrol && own !== undefined && !own.invited;
  useEffect(() => { if (enter) void navigate({ to: '/app/account/security' }); }, [enter, navigate]);
  if (!user) return null;

  return (
    <div className="shell">
      <a className="skip" href="#content">{t('app.skip')}</a>
      <nav className="nav" aria-label={t('nav.main')}>
        <Brand name={me?.tenant.name ?? null} />
        <ul>
          {entries.map((entry) => (
            <li key={entry.to}>
              <Link to={entry.to} className="nav-link" title={t(entry.label)} {...(entry.near?.some((path) => here.startsWith(path)) ? { 'aria-current': 'page' } : {})} activeProps={{ 'aria-current': 'page' }} data-testid={`nav-${entry.to.slice(5).split('/')[0]}`}>
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
        <main id="content" className="content" tabIndex={-1}>
          {OFFICE.some((path) => here.startsWith(path)) && !has(user, 'admin') ? <NoAccess /> : <Outlet />}
        </main>
      </div>
      <Reauth />
      <StepUp />
      <IdleWarning />
    </div>
  );
}

function WaitingCount() {
  const t = useT();
  const { data } = useOpenVisits(() => { if (arrivalSound.get()) playTestSound().catch(() => undefined); });
  const count = waitingOf(data?.visits ?? []).length;
  return count === 0 ? null : <b className="nav-count num" data-testid="nav-waiting">{count}<span className="sr-only"> {t('queue.waiting')}</span></b>;
}
