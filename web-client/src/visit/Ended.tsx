// After the visit, and after leaving it for a while.
import type { Visit } from '../core/api/types';
import { age, clockTime, millis } from '../core/time/time';
import { Icon } from '../ui/Icon';
import { Button } from '../ui/parts';
import { useLanguage, useT } from '../ui/store';
import { Heading, Page } from './Page';

function CancelledScreen({ clinic }: { clinic: string | null }) {
  const t = useT();
  return (
    <Page clinic={clinic}>
      <div className="problem" data-testid="visit-cancelled">
        <span className="empty-icon" data-tone="warn"><Icon name="clock" size={28} /></span>
        <Heading>{t('visit.cancelled.title')}</Heading>
        <p className="lead" role="status">{t('visit.cancelled.text')}</p>
      </div>
    </Page>
  );
}

export function EndedScreen({ visit, clinic }: { visit: Visit; clinic: string | null }) {
  const t = useT();
  const language = useLanguage();
  const from = millis(visit.admitted_at);
  const to = millis(visit.ended_at);
  if (visit.cancelled_at) return <CancelledScreen clinic={clinic} />;
  return (
    <Page clinic={clinic}>
      <div className="problem" data-testid="visit-ended">
        <span className="empty-icon" data-tone="good"><Icon name="check" size={28} /></span>
        <Heading>{t('visit.ended.title')}</Heading>
        <p className="lead">{t('visit.ended.lead', { name: visit.host.name })}</p>
      </div>
      <dl className="summary card">
        <div><dt>{t('visit.ended.with')}</dt><dd>{visit.host.name}</dd></div>
        {from !== null ? <div><dt>{t('visit.ended.started')}</dt><dd>{clockTime(from, language)}</dd></div> : null}
        {from !== null && to !== null ? <div><dt>{t('visit.ended.length')}</dt><dd>{age(to - from, language)}</dd></div> : null}
      </dl>
      <p className="muted center">{t('visit.ended.close')}</p>
    </Page>
  );
}

export function LeftScreen({ clinic, onBack }: { clinic: string | null; onBack: () => void }) {
  const t = useT();
  return (
    <Page clinic={clinic} action={<Button variant="primary" size="l" onClick={onBack} data-testid="visit-rejoin">{t('visit.left.back')}</Button>}>
      <div className="problem" data-testid="visit-left">
        <span className="empty-icon"><Icon name="door" size={28} /></span>
        <Heading>{t('visit.left.title')}</Heading>
        <p className="lead">{t('visit.left.text')}</p>
      </div>
    </Page>
  );
}
