// In the place of the call, for a colleague who looks at somebody else's visit: what they may do here, and nothing else.
import type { Visit } from '../../core/api/types';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';

export function Colleague({ visit, mayJoin, busy, failed, onJoin }: { visit: Visit; mayJoin: boolean; busy: boolean; failed: boolean; onJoin: () => void }) {
  const t = useT();
  const name = visit.host.name;
  return (
    <div className="cs-look" data-testid="look-only">
      <h2>{t('consult.others_visit', { name })}</h2>
      <p>{t('consult.look_only')}</p>
      {mayJoin ? (
        <>
          <p>{t('consult.join_text', { name })}</p>
          <Button variant="primary" icon="camera" busy={busy} onClick={onJoin} data-testid="join-visit">{t('consult.join')}</Button>
        </>
      ) : null}
      {failed ? <Notice tone="danger">{t('consult.join_failed')}</Notice> : null}
    </div>
  );
}
