// One patient in the queue.
import type { Visit } from '../../core/api/types';
import { clockTime } from '../../core/time/time';
import { sentBack } from '../../core/visit/phase';
import { Avatar, Button } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { Devices } from '../ui/Devices';
import { VisitState } from '../ui/VisitState';
import { WaitTime } from '../ui/WaitTime';

export function QueueRow({ visit, place, picked, busy, onPick, onAdmit, onOpen }: {
  visit: Visit; place: number | null; picked: boolean; busy: boolean; onPick: () => void; onAdmit?: () => void; onOpen: () => void;
}) {
  const t = useT();
  const language = useLanguage();
  const online = visit.guest.online ?? false;
  return (
    <li className="row" data-picked={picked || undefined} data-row={visit.id} tabIndex={place === null ? undefined : picked ? 0 : -1} onFocus={onPick}
      data-testid="queue-row" data-visit={visit.id}>
      <span className="row-place num">{place}</span>
      <span className="row-face"><Avatar name={visit.guest.name} /><i className="presence mark" data-on={online || undefined} /></span>
      <span className="row-who">
        <strong>{visit.guest.name}</strong>
        <span className="muted small">{t('visit.with', { name: visit.host.name })} · <span className="num">{clockTime(visit.start, language)}</span>
          <span className="sr-only"> {online ? t('queue.online') : t('queue.away')}</span>{online ? null : <em> · {t('queue.away')}</em>}</span>
      </span>
      <span className="row-mid">
        {sentBack(visit) ? <span className="chip" data-tone="info">{t('queue.sent_back')}</span> : null}
        <Devices check={visit.guest.device_check} />
      </span>
      <span className="row-wait">{visit.state === 'waiting' ? <WaitTime since={visit.arrived_at} /> : <VisitState state={visit.state} />}</span>
      <span className="row-acts">
        <Button size="s" onClick={onOpen} data-testid="open-visit" aria-label={t('queue.open_named', { name: visit.guest.name })}>{t('queue.open')}</Button>
        {onAdmit ? <Button size="s" variant="primary" busy={busy} onClick={onAdmit} data-testid="admit" aria-label={t('queue.admit_named', { name: visit.guest.name })}>{t('queue.admit')}</Button> : null}
      </span>
    </li>
  );
}
