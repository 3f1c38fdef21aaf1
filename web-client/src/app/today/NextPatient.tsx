// The next patient, large: who, why, and one button.
import { clockTime, millis, relative, yearsOld } from '../../core/time/time';
import { CopyButton } from '../../ui/CopyButton';
import { Avatar, Button, EmptyState } from '../../ui/parts';
import { useLanguage, useNow, useT } from '../../ui/store';
import { Devices } from '../ui/Devices';
import { VisitState } from '../ui/VisitState';
import { WaitTime } from '../ui/WaitTime';
import { inviteOf } from './invite';
import type { Slot } from './Today';

export function NextPatient({ slot, onOpen }: { slot: Slot | undefined; onOpen: () => void }) {
  const t = useT();
  const language = useLanguage();
  const now = useNow(20_000);
  if (!slot) return <aside className="card next"><EmptyState icon="check" title={t('today.done')}>{t('today.done_text')}</EmptyState></aside>;
  const { appointment: a, visit } = slot;
  const invite = inviteOf(a);
  const start = millis(a.start) ?? now;
  const age = a.patient.birth_date ? yearsOld(a.patient.birth_date) : null;
  return (
    <aside className="card next" aria-label={t('today.next')} data-testid="next-patient">
      <p className="next-label">{t(visit?.state === 'in_consult' || visit?.state === 'admitted' ? 'today.in_visit' : 'today.next')}</p>
      <div className="next-who">
        <Avatar name={a.patient.name} size="l" />
        <div><h2>{a.patient.name}</h2><p className="muted">{[age === null ? null : t('patient.age', { count: age }), a.patient.sex ? t(sexKey(a.patient.sex)) : null].filter(Boolean).join(' · ')}</p></div>
      </div>
      <dl className="facts">
        <div><dt>{t('today.reason')}</dt><dd>{a.reason ?? t('today.no_reason')}</dd></div>
        <div><dt>{t('today.time')}</dt><dd className="num">{clockTime(a.start, language)} · {relative(start - now, language)}</dd></div>
        <div><dt>{t('today.state')}</dt><dd className="next-state"><VisitState state={visit?.state ?? 'scheduled'} />{visit?.state === 'waiting' ? <WaitTime since={visit.arrived_at} /> : null}</dd></div>
        {visit?.guest.device_check ? <div><dt>{t('today.devices')}</dt><dd><Devices check={visit.guest.device_check} /></dd></div> : null}
      </dl>
      <Button variant="primary" size="l" onClick={onOpen} disabled={!a.visit_id} data-testid="open-next">{t('today.open')}</Button>
      {invite && (!visit || !(visit.guest.online ?? false)) ? <div className="next-invite"><CopyButton text={invite} words={t('today.copy')} variant="ghost" testId="copy-invite" /><p className="muted small">{t('today.copy_text')}</p></div> : null}
    </aside>
  );
}

export function sexKey(sex: string): 'sex.female' | 'sex.male' | 'sex.other' | 'sex.unknown' {
  return sex === 'female' ? 'sex.female' : sex === 'male' ? 'sex.male' : sex === 'other' ? 'sex.other' : 'sex.unknown';
}
