// "Is it you?": asked when an act wants a fresh proof. The request that asked waits behind it and is sent once more.
import { useQuery } from '@tanstack/react-query';
import { account } from '../../core/api/endpoints';
import { wanted } from '../../core/session/session';
import { passkeysHere } from '../../core/webauthn/passkeys';
import { Button, ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useStore, useT } from '../../ui/store';
import { hub } from '../hub';
import { Proofs } from '../signin/Proofs';
import { Sso } from '../signin/Sso';
import { Sheet } from '../ui/Sheet';

export function StepUp() {
  const t = useT();
  const answer = useStore(hub.stepUp);
  return (
    <Sheet open={answer !== null} title={t('stepup.title')} onClose={() => answer?.(false)} testId="stepup">
      <p className="muted">{t('stepup.text')}</p>
      {answer ? <Asked onProved={() => answer(true)} onCancel={() => answer(false)} /> : null}
    </Sheet>
  );
}

function Asked({ onProved, onCancel }: { onProved: () => void; onCancel: () => void }) {
  const t = useT();
  const query = useQuery({ queryKey: ['security', 'stepup'], queryFn: () => account.security(hub.plainApi), staleTime: 0, gcTime: 0 });
  if (query.isError) return <ErrorState error={query.error} onRetry={() => void query.refetch()} />;
  if (!query.data) return <Skeleton lines={2} />;
  const methods = query.data.step_up.filter((m) => m !== 'passkey' || passkeysHere());
  return (
    <div className="signin">
      {methods.length === 0 ? <Notice tone="warn" testId="stepup-none">{t('stepup.none')}</Notice> : null}
      {methods.length === 0 ? <Sso fresh onLeave={() => wanted.write(location.pathname + location.search)} /> : null}
      <Proofs name="stepup" methods={methods} texts={{ passkey: 'stepup.passkey', submit: 'stepup.confirm' }} onDone={onProved} prove={(given) => hub.prove(given)}>
        <div className="dialog-acts">
          <Button variant="ghost" onClick={onCancel}>{t('common.cancel')}</Button>
          {methods.length === 0 ? <Button variant="primary" onClick={() => void hub.signOut()}>{t('stepup.sign_in')}</Button> : null}
        </div>
      </Proofs>
    </div>
  );
}
