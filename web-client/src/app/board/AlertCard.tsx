// One alert: its severity told by shape, colour and word, its age, and who took it.
import { useRouter } from '@tanstack/react-router';
import type { Alert, Severity } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { age, clockTime, millis } from '../../core/time/time';
import { Icon } from '../../ui/Icon';
import { Button } from '../../ui/parts';
import { useLanguage, useNow, useT } from '../../ui/store';
import { noticeTitle } from '../words';

const WORD: Record<Severity, MessageKey> = { critical: 'severity.critical', warning: 'severity.warning', info: 'severity.info' };

export function SeverityMark({ severity, size = 30 }: { severity: Severity; size?: number }) {
  const shape = severity === 'critical' ? <path d="M9.500 1.500h11l8 8v11l-8 8h-11l-8-8v-11z" /> : severity === 'warning' ? <path d="M15 2.500 28.500 27h-27z" /> : <circle cx="15" cy="15" r="12.500" />;
  return (
    <svg className="severity mark" data-severity={severity} width={size} height={size} viewBox="0 0 30 30" aria-hidden="true">
      {shape}<path className="severity-sign" d={severity === 'info' ? 'M15 14v7M15 9.200v.1' : severity === 'warning' ? 'M15 11.500v7M15 22.500v.1' : 'M15 8v9M15 21.800v.1'} />
    </svg>
  );
}

export function AlertCard({ alert, busy, onAcknowledge }: { alert: Alert; busy: boolean; onAcknowledge: () => void }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(1000);
  const router = useRouter();
  const at = millis(alert.at) ?? now;
  const done = Boolean(alert.acknowledged_at);
  const who = typeof alert.acknowledged_by === 'string' ? alert.acknowledged_by : alert.acknowledged_by?.name;
  return (
    <li className="alert card" data-severity={alert.severity} data-done={done || undefined}  data-testid="alert" data-alert={alert.id} data-acknowledged={done}>
      <SeverityMark severity={alert.severity} />
      <div className="alert-text">
        <div role={alert.severity === 'critical' && !done ? 'alert' : undefined}>
          <span className="alert-word">{t(WORD[alert.severity])}<span className="sr-only">: </span></span>
          <strong>{noticeTitle(t, alert.title)}</strong>
        </div>
        {done ? <span className="muted small"><Icon name="check" size={15} /> {t('board.ack_by', { name: displayName(who, t('board.someone')), time: clockTime(alert.acknowledged_at ?? alert.at, language) })}</span> : null}
      </div>
      <span className="alert-age num">{age(now - at, language)}</span>
      <span className="alert-acts">
        {alert.link?.startsWith('/app/') ? <Button size="s" variant="ghost" onClick={() => router.history.push(alert.link ?? '')}>{t('board.open')}</Button> : null}
        {done ? null : <Button size="s" variant={alert.severity === 'critical' ? 'primary' : 'secondary'} busy={busy} onClick={onAcknowledge} data-testid="acknowledge">{t('board.acknowledge')}</Button>}
      </span>
    </li>
  );
}

/** A bare subject ("user:…") tells a reader nothing. */
function displayName(who: string | undefined, fallback: string): string {
  return who === undefined || /^[a-z]+:/.test(who) ? fallback : who;
}
