// Small parts that all screens share. Native elements: light enough for the patient's first screen.
import type { ButtonHTMLAttributes, ReactNode } from 'react';
import { asApiError } from '../core/api/problem';
import { translation } from '../core/i18n/i18n';
import { Icon, type IconName } from './Icon';
import { useT } from './store';
import './ui.css';

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  variant?: 'primary' | 'secondary' | 'ghost' | 'danger';
  size?: 's' | 'm' | 'l';
  icon?: IconName;
  busy?: boolean;
}

export function Button({ variant = 'secondary', size = 'm', icon, busy = false, children, disabled, ...rest }: ButtonProps) {
  return (
    <button type="button" {...rest} className={`btn ${rest.className ?? ''}`} data-variant={variant} data-size={size}
      aria-busy={busy || undefined} disabled={disabled || busy}>
      {busy ? <Spinner /> : icon ? <Icon name={icon} size={size === 's' ? 16 : 20} /> : null}
      {children === undefined ? null : <span>{children}</span>}
    </button>
  );
}

export function Spinner() {
  return <span className="spinner" aria-hidden="true" />;
}

/** The product's mark and, where known, the clinic's name. */
export function Brand({ name }: { name?: string | null }) {
  return (
    <span className="brand">
      <span className="brand-mark mark"><Icon name="pulse" size={18} /></span>
      <span className="brand-name">{name ?? 'MedTech'}</span>
    </span>
  );
}

export function Avatar({ name, size = 'm' }: { name: string; size?: 's' | 'm' | 'l' | 'xl' }) {
  const letters = name.replace(/^(?:Dr|Dra|Prof|Mr|Mrs|Ms)\.?\s+/i, '').split(/\s+/).map((part) => part[0] ?? '');
  const initials = `${letters[0] ?? ''}${letters.length > 1 ? (letters.at(-1) ?? '') : ''}`.toUpperCase();
  return <span className="avatar" data-size={size} aria-hidden="true">{initials}</span>;
}

type Tone = 'info' | 'warn' | 'danger' | 'good';
const TONE_ICON: Record<Tone, IconName> = { info: 'info', warn: 'alert', danger: 'alert', good: 'check' };

export function Notice({ tone = 'info', title, children, action, testId }: { tone?: Tone; title?: string; children?: ReactNode; action?: ReactNode; testId?: string }) {
  return (
    <div className="notice" data-tone={tone} role={tone === 'danger' ? 'alert' : 'status'} data-testid={testId}>
      <Icon name={TONE_ICON[tone]} />
      <div className="notice-text">
        {title ? <strong>{title}</strong> : null}
        {children ? <div>{children}</div> : null}
      </div>
      {action}
    </div>
  );
}

/** Shown only after 150 ms (by its style), so that a quick answer never flashes. */
export function Skeleton({ lines = 3 }: { lines?: number }) {
  const t = useT();
  return (
    <div className="skeleton" role="status">
      <span className="sr-only">{t('common.loading')}</span>
      {Array.from({ length: lines }, (_, i) => <span key={i} className="skeleton-line" />)}
    </div>
  );
}

export function EmptyState({ icon, title, children, action }: { icon: IconName; title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="empty">
      <span className="empty-icon"><Icon name={icon} size={26} /></span>
      <h2>{title}</h2>
      {children ? <p>{children}</p> : null}
      {action}
    </div>
  );
}

/** What happened, what is safe, what to do, and a reference to quote. */
export function ErrorState({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const t = useT();
  const problem = asApiError(error);
  const text = problem.status === 0 ? t('error.network') : problem.status === 403 ? t('error.forbidden')
    : problem.status === 404 ? t('error.not_found') : problem.status === 410 ? t('error.gone') : problem.status === 429 ? t('error.many')
    : problem.status < 500 && problem.detail !== '' && translation.get()?.language === 'en' ? problem.detail : t('error.server');
  // What is not allowed, or not there, is not so a second time either.
  const again = problem.status !== 403 && problem.status !== 404 && problem.status !== 410;
  return (
    <div className="empty" role="alert" data-testid="error-state">
      <span className="empty-icon" data-tone="warn"><Icon name="alert" size={26} /></span>
      <h2>{t('error.title')}</h2>
      <p>{text}</p>
      {problem.correlation ? <p className="muted small">{t('error.reference', { id: problem.correlation })}</p> : null}
      {onRetry && again ? <Button icon="retry" onClick={onRetry}>{t('common.retry')}</Button> : null}
    </div>
  );
}
