// A group of pages under one head: its title, what it is for, and the way to its neighbours.
import { Link, type LinkProps } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import { useTitle } from '../../ui/store';
import './pages.css';

export interface PageLink { to: NonNullable<LinkProps['to']>; name: string; testId: string }

export function Pages({ title, lead, label, links, action, children }: {
  title: string; lead: string; label: string; links: readonly PageLink[]; action?: ReactNode; children: ReactNode;
}) {
  useTitle(title);
  return (
    <div className="pages">
      <header className="screen-top">
        <div><h1>{title}</h1><p className="muted">{lead}</p></div>
        {action}
      </header>
      <nav className="pages-nav" aria-label={label}>
        {links.map((link) => <Link key={link.testId} to={link.to} activeProps={{ 'aria-current': 'page' }} data-testid={link.testId}>{link.name}</Link>)}
      </nav>
      {children}
    </div>
  );
}
