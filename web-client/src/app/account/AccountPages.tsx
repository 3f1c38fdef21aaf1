// The head of everyone's own pages.
import type { ReactNode } from 'react';
import { useT } from '../../ui/store';
import { Pages } from '../ui/Pages';

export function AccountPages({ lead, children }: { lead: string; children: ReactNode }) {
  const t = useT();
  const links = [
    { to: '/app/account/profile', name: t('account.profile'), testId: 'account-profile' },
    { to: '/app/account/security', name: t('security.title'), testId: 'account-security' },
    { to: '/app/account/preferences', name: t('account.preferences'), testId: 'account-preferences' },
    { to: '/app/account/privacy', name: t('account.privacy'), testId: 'account-privacy' },
  ] as const;
  return <Pages title={t('account.title')} lead={lead} label={t('account.pages')} links={links}>{children}</Pages>;
}
