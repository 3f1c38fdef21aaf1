// A visit goes on while the clinician looks at something else: the way back is never further than one step.
import { Link, useRouterState } from '@tanstack/react-router';
import { Icon } from '../../ui/Icon';
import { useT } from '../../ui/store';
import { useOpenVisits } from '../visits';

export function BackToVisit() {
  const t = useT();
  const here = useRouterState({ select: (state) => state.location.pathname });
  const { data } = useOpenVisits();
  const left = (data?.visits ?? []).filter((v) => (v.state === 'admitted' || v.state === 'in_consult') && !here.endsWith(v.id));
  if (left.length === 0) return null;
  return (
    <div className="conn" data-state="visit" role="status" data-testid="back-to-visit">
      <Icon name="camera" size={18} /><span>{t('shell.left_in_visit')}</span>
      {left.map((v) => <Link key={v.id} to="/app/visit/$id" params={{ id: v.id }} data-visit={v.id}>{v.guest.name}</Link>)}
    </div>
  );
}
