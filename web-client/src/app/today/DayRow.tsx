// One appointment of the day.
import { clockTime, yearsOld } from '../../core/time/time';
import { CopyButton } from '../../ui/CopyButton';
import { Icon } from '../../ui/Icon';
import { useLanguage, useT } from '../../ui/store';
import { VisitState } from '../ui/VisitState';
import { WaitTime } from '../ui/WaitTime';
import { subjectOf } from '../../core/session/hub';
import { useUser } from '../hub';
import { inviteOf } from './invite';
import { isDone, type Slot } from './Today';

export function DayRow({ slot, index, current, past, onOpen, onFocus }: {
  slot: Slot; index: number; current: boolean; past: boolean; onOpen: () => void; onFocus: () => void;
}) {
  const t = useT();
  const language = useLanguage();
  const { appointment, visit } = slot;
  // Who has no appointments of their own sees those of all: whose they are stands beside.
  const user = useUser();
  const own = user ? subjectOf(user) : null;
  const invite = inviteOf(appointment);
  const age = appointment.patient.birth_date ? yearsOld(appointment.patient.birth_date) : null;
  return (
    <li className="day-item" data-current={current || undefined}>
      <button type="button" className="day-row" data-slot={index} data-current={current || undefined} data-past={(past && !visit) || isDone(appointment) || undefined}
        onClick={onOpen} onFocus={onFocus} disabled={!appointment.visit_id} data-testid="appointment" data-visit={appointment.visit_id}>
        <span className="day-time num"><strong>{clockTime(appointment.start, language)}</strong><span>{clockTime(appointment.end, language)}</span></span>
        <span className="day-who">
          <strong>{appointment.patient.name}{age === null ? null : <span className="muted num"> · {t('patient.age', { count: age })}</span>}</strong>
          <span className="muted">{appointment.reason ?? t('today.no_reason')}{visit && visit.host.subject !== own ? ` · ${t('visit.with', { name: visit.host.name })}` : ''}</span>
        </span>
        <span className="day-state">
          {visit?.state === 'waiting' ? <WaitTime since={visit.arrived_at} /> : null}
          <VisitState state={visit?.state ?? (isDone(appointment) ? 'ended' : 'scheduled')} />
        </span>
        <Icon name="next" size={18} />
      </button>
      {invite ? <CopyButton text={invite} label={t('today.copy_named', { name: appointment.patient.name })} testId="copy-link" /> : null}
    </li>
  );
}
