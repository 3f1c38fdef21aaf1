// "Sign in with …": the outside providers of the clinic, where it has any.
import { useMutation, useQuery } from '@tanstack/react-query';
import { ApiClient } from '../../core/api/client';
import { sso } from '../../core/api/endpoints';
import { tab } from '../../core/store/keep';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { problemText } from '../words';

/** Stays in this tab: the provider's answer is taken here and nowhere else. */
export const BROWSER = 'medtech.sso';

/** Fresh: the provider proves anew who it is, also of somebody who is signed in there. */
export function Sso({ fresh = false, onLeave }: { fresh?: boolean; onLeave?: () => void }) {
  const t = useT();
  const all = useQuery({ queryKey: ['sso'], queryFn: () => sso.buttons(new ApiClient()), staleTime: 300_000, retry: false });
  const start = useMutation({
    mutationFn: (provider: string) => sso.start(new ApiClient(), provider, fresh),
    onSuccess: ({ redirect, browser }) => {
      tab.write(BROWSER, browser);
      onLeave?.();
      location.assign(redirect);
    },
  });
  const providers = all.data?.providers ?? [];
  if (providers.length === 0) return null;
  return (
    <div className="sso">
      {start.isError ? <Notice tone="danger" testId="sso-error">{problemText(t, start.error)}</Notice> : null}
      {providers.map((p) => (
        <Button key={p.id} size="l" icon="door" busy={(start.isPending || start.isSuccess) && start.variables === p.id} disabled={start.isPending || start.isSuccess}
          onClick={() => start.mutate(p.id)} data-testid="sso-start">{t('signin.with', { name: p.name })}</Button>
      ))}
    </div>
  );
}
