// The head of the administrators' pages. Clinics are there for those who run the installation.
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { useT } from '../../ui/store';
import { hub } from '../hub';
import { Pages, type PageLink } from '../ui/Pages';
import { clinics } from './api';

export function AdminPages({ lead, action, children }: { lead: string; action?: ReactNode; children: ReactNode }) {
  const t = useT();
  const { data: own } = useQuery({ queryKey: ['clinic'], queryFn: () => clinics.current(hub.api), staleTime: Infinity });
  const links: PageLink[] = [
    { to: '/app/admin/people', name: t('admin.people'), testId: 'admin-people' },
    { to: '/app/admin/roles', name: t('admin.roles'), testId: 'admin-roles' },
    ...(own?.home ? [{ to: '/app/admin/clinics', name: t('admin.clinics'), testId: 'admin-clinics' } as const] : []),
    { to: '/app/access', name: t('nav.access'), testId: 'admin-access' },
    { to: '/app/clients', name: t('nav.clients'), testId: 'admin-clients' },
    { to: '/app/admin/settings', name: t('admin.settings'), testId: 'admin-settings' },
    { to: '/app/admin/data', name: t('admin.data'), testId: 'admin-data' },
  ];
  return <Pages title={t('admin.title')} lead={lead} label={t('admin.pages')} links={links} action={action}>{children}</Pages>;
}
