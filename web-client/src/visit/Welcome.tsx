// The first screen: who expects the patient, and when. One action; for a visit that is still far, a calendar entry.
import type { Visit } from '../core/api/types';
import { calendarEntry } from '../core/time/calendar';
import { dayName, millis, relative, zonedTime } from '../core/time/time';
import { guestSession } from '../core/session/session';
import { Icon } from '../ui/Icon';
import { Avatar, Button } from '../ui/parts';
import { useLanguage, useNow, useT } from '../ui/store';
import { Heading, Page } from './Page';

/** Nobody writes down what begins in a moment. */
const FAR_MS = 10 * 60_000;
/** A visit's length is not told to the patient; calendars want one. */
const LENGTH_MINUTES = 30;

export function Welcome({ visit, clinic, onStart }: { visit: Visit; clinic: string | null; onStart: () => void }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(15_000);
  const start = millis(visit.start) ?? now;
  const first = visit.guest.name.split(' ')[0] ?? '';
  const keep = () => {
    const entry = calendarEntry({
      id: visit.id, title: t('visit.calendar.title', { clinic: clinic ?? '' }).trim(), text: t('visit.calendar.text'),
      url: `${location.origin}/visit#${guestSession.read()?.link ?? ''}`, start, minutes: LENGTH_MINUTES, stamp: now, reminder: 10,
    });
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([entry], { type: 'text/calendar;charset=utf-8' }));
    link.download = 'visit.ics';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  return (
    <Page clinic={clinic} action={<Button variant="primary" size="l" onClick={onStart} data-testid="visit-start">{t('visit.welcome.start')}</Button>}>
      <Heading>{first ? t('visit.welcome.hello', { name: first }) : t('visit.welcome.hello_plain')}</Heading>
      <p className="lead">{t('visit.welcome.lead')}</p>
      <section className="card host-card" data-testid="visit-host">
        <Avatar name={visit.host.name} size="l" />
        <div>
          <h2>{visit.host.name}</h2>
          {clinic ? <p className="muted">{clinic}</p> : null}
        </div>
        <dl className="host-when">
          <Icon name="clock" />
          <div>
            <dt className="sr-only">{t('visit.welcome.when')}</dt>
            <dd><strong>{zonedTime(start, language)}</strong> · {dayName(start, language)}</dd>
            <dd className="muted">{Math.abs(start - now) < 60_000 ? t('visit.welcome.now') : relative(start - now, language)}</dd>
          </div>
        </dl>
        {start - now > FAR_MS ? <Button icon="today" onClick={keep} data-testid="add-to-calendar">{t('visit.calendar.add')}</Button> : null}
      </section>
      <h2 className="sub">{t('visit.welcome.next')}</h2>
      <ol className="todo">
        <li><Icon name="camera" /><span>{t('visit.welcome.todo_devices')}</span></li>
        <li><Icon name="shield" /><span>{t('visit.welcome.todo_consent')}</span></li>
        <li><Icon name="people" /><span>{t('visit.welcome.todo_wait', { name: visit.host.name })}</span></li>
      </ol>
    </Page>
  );
}
