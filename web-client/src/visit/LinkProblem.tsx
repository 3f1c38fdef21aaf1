// A link that does not open: what happened, and the one thing to do.
import type { ApiError } from '../core/api/problem';
import type { MessageKey } from '../core/i18n/i18n';
import { Icon, type IconName } from '../ui/Icon';
import { Button } from '../ui/parts';
import { useT } from '../ui/store';
import { Heading, Page } from './Page';

type Kind = 'in_use' | 'expired' | 'ended' | 'cancelled' | 'invalid' | 'offline' | 'server';
/** Without an action where trying the same link again can't help. */
const LOOK: Record<Kind, { icon: IconName; title: MessageKey; text: MessageKey; action?: MessageKey }> = {
  in_use: { icon: 'phone', title: 'visit.problem.in_use', text: 'visit.problem.in_use_text', action: 'visit.problem.take_over' },
  expired: { icon: 'clock', title: 'visit.problem.expired', text: 'visit.problem.expired_text' },
  ended: { icon: 'check', title: 'visit.ended.title', text: 'visit.problem.ended_text' },
  cancelled: { icon: 'clock', title: 'visit.cancelled.title', text: 'visit.cancelled.text' },
  invalid: { icon: 'link', title: 'visit.problem.invalid', text: 'visit.problem.invalid_text' },
  offline: { icon: 'alert', title: 'visit.problem.offline', text: 'visit.problem.offline_text', action: 'common.retry' },
  server: { icon: 'alert', title: 'visit.problem.server', text: 'visit.problem.server_text', action: 'common.retry' },
};

function kindOf(error: ApiError): Kind {
  if (error.code === 'visit.link_in_use') return 'in_use';
  if (error.code === 'visit.link_expired') return 'expired';
  if (error.code === 'visit.ended') return 'ended';
  if (error.code === 'visit.cancelled') return 'cancelled';
  if (error.status === 0) return 'offline';
  return error.status >= 400 && error.status < 500 && error.status !== 429 ? 'invalid' : 'server';
}

export function LinkProblem({ error, taking, onTakeOver, onRetry }: {
  error: ApiError; /** This device waits until the other one is gone. */ taking: boolean; onTakeOver: () => void; onRetry: () => void;
}) {
  const t = useT();
  const kind = kindOf(error);
  const look = LOOK[kind];
  const act = kind === 'in_use' ? onTakeOver : onRetry;
  const over = kind === 'ended';
  return (
    <Page clinic={null} action={look.action ? <Button variant="primary" size="l" onClick={act} busy={taking} data-testid="problem-action">{t(taking ? 'visit.problem.taking' : look.action)}</Button> : undefined}>
      <div className="problem" data-testid="visit-problem" data-code={error.code}>
        <span className="empty-icon" data-tone={over ? undefined : 'warn'}><Icon name={look.icon} size={28} /></span>
        <Heading>{t(look.title)}</Heading>
        <p className="lead" role="status">{t(taking ? 'visit.problem.still_in_use' : look.text)}</p>
        {error.correlation && kind === 'server' ? <p className="muted small">{t('error.reference', { id: error.correlation })}</p> : null}
      </div>
    </Page>
  );
}
