// The clinician's day: what comes next, a line at the present moment, and who has arrived.
import { useNavigate } from '@tanstack/react-router';
import { Fragment, useState } from 'react';
import type { Appointment, Visit } from '../../core/api/types';
import { clockTime, dayName, millis } from '../../core/time/time';
import { EmptyState, ErrorState, Skeleton } from '../../ui/parts';
import { useLanguage, useNow, useT, useTitle } from '../../ui/store';
import { useShortcuts } from '../hub';
import { useDay, useOpenVisits } from '../visits';
import { DayRow } from './DayRow';
import { NextPatient } from './NextPatient';

export interface Slot { appointment: Appointment; visit: Visit | null }

export function Today() {
  const t = useT();
  const language = useLanguage();
  const navigate = useNavigate();
  const now = useNow(20_000);
  const day = useDay();
  const open = useOpenVisits();
  const [picked, setPicked] = useState(0);
  useTitle(t('nav.today'));

  const byId = new Map((open.data?.visits ?? []).map((v) => [v.id, v]));
  const slots: Slot[] = (day.data?.appointments ?? [])
    .toSorted((a, b) => (millis(a.start) ?? 0) - (millis(b.start) ?? 0))
    .map((appointment) => ({ appointment, visit: appointment.visit_id ? (byId.get(appointment.visit_id) ?? null) : null }));
  const next = nextSlot(slots, now);
  const goTo = (slot: Slot | undefined) => {
    if (slot?.appointment.visit_id) void navigate({ to: '/app/visit/$id', params: { id: slot.appointment.visit_id } });
  };
  const focus = (index: number) => {
    setPicked(index);
    document.querySelector<HTMLElement>(`[data-slot="${index}"]`)?.focus();
  };
  useShortcuts({
    j: () => focus(Math.min(picked + 1, slots.length - 1)),
    k: () => focus(Math.max(picked - 1, 0)),
  });

  const line = slots.findIndex((s) => (millis(s.appointment.start) ?? 0) > now);
  return (
    <div className="today">
      <header className="screen-top">
        <div><h1>{t('nav.today')}</h1><p className="muted">{dayName(now, language)}</p></div>
        {day.data ? <p className="muted num">{t('today.count', { count: slots.length })}</p> : null}
      </header>
      {day.isError ? <ErrorState error={day.error} onRetry={() => void day.refetch()} />
        : day.isPending ? <div className="card"><Skeleton lines={6} /></div>
        : slots.length === 0 ? <div className="card"><EmptyState icon="today" title={t('today.empty')}>{t('today.empty_text')}</EmptyState></div>
        : (
          <div className="today-grid">
            <ol className="card day" aria-label={t('today.list')}>
              {slots.map((slot, index) => (
                <Fragment key={slot.appointment.id}>
                  {index === line ? <NowLine now={now} language={language} /> : null}
                  <DayRow slot={slot} index={index} current={slot === next} past={line === -1 || index < line} onOpen={() => goTo(slot)} onFocus={() => setPicked(index)} />
                </Fragment>
              ))}
              {line === -1 ? <NowLine now={now} language={language} /> : null}
            </ol>
            <NextPatient slot={next} onOpen={() => goTo(next)} />
          </div>
        )}
    </div>
  );
}

function NowLine({ now, language }: { now: number; language: string }) {
  const t = useT();
  return <li className="now-line num" aria-label={t('today.now', { time: clockTime(now, language) })} data-testid="now-line"><span>{clockTime(now, language)}</span></li>;
}

/** Who waits comes first (the longest wait), then the next one not yet seen. */
export function nextSlot(slots: readonly Slot[], now: number): Slot | undefined {
  const active = slots.find((s) => s.visit?.state === 'admitted' || s.visit?.state === 'in_consult');
  if (active) return active;
  const waiting = slots.filter((s) => s.visit?.state === 'waiting')
    .toSorted((a, b) => (a.visit?.arrived_at ?? '').localeCompare(b.visit?.arrived_at ?? ''))[0];
  return waiting ?? slots.find((s) => !isDone(s.appointment) && (millis(s.appointment.end) ?? 0) > now);
}

export const isDone = (a: Appointment): boolean => a.status === 'fulfilled' || a.status === 'cancelled' || a.status === 'noshow';
