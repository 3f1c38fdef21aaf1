// Who the visit is with, where it stands, and what can be done with it now.
import { Link } from '@tanstack/react-router';
import type { Visit } from '../../core/api/types';
import { Icon } from '../../ui/Icon';
import { Button } from '../../ui/parts';
import { useT } from '../../ui/store';
import { VisitState } from '../ui/VisitState';
import { WaitTime } from '../ui/WaitTime';

export function VisitBar({ visit, can, busy, onAct, onEnd, onKeys }: {
  visit: Visit; can: { admit: boolean; hold: boolean; end: boolean }; busy: string | null;
  onAct: (action: 'admit' | 'hold') => void; onEnd: () => void; onKeys: () => void;
}) {
  const t = useT();
  const online = visit.guest.online ?? false;
  return (
    <header className="visit-bar">
      <Link to="/app/queue" className="icon-btn" aria-label={t('consult.back')}><Icon name="back" /></Link>
      <div className="visit-who">
        <h1>{visit.guest.name}</h1>
        <span className="muted small">{t('visit.with', { name: visit.host.name })}</span>
      </div>
      <VisitState state={visit.state} />
      {visit.state === 'waiting' ? <WaitTime since={visit.arrived_at} /> : null}
      {visit.state === 'ended' ? null : (
        <span className="visit-online small" data-on={online || undefined} data-testid="guest-online" data-online={online}><i className="mark" />{t(online ? 'consult.patient_online' : 'consult.patient_away')}</span>
      )}
      <span className="visit-acts">
        <button type="button" className="icon-btn" onClick={onKeys} aria-label={t('keys.title')} title={t('keys.title')} data-testid="keys"><Icon name="keyboard" /></button>
        {can.hold ? <Button icon="pause" busy={busy === 'hold'} onClick={() => onAct('hold')} data-testid="hold">{t('consult.hold')}</Button> : null}
        {can.admit ? <Button variant="primary" icon="door" busy={busy === 'admit'} onClick={() => onAct('admit')} data-testid="admit">{t('queue.admit')}</Button> : null}
        {can.end ? <Button variant={can.hold ? 'danger' : 'secondary'} icon="stop" busy={busy === 'end'} onClick={onEnd} data-testid="end">{t('consult.end')}</Button> : null}
      </span>
    </header>
  );
}
