// What one signs in with, and where one is signed in.
import { useQuery } from '@tanstack/react-query';
import { account } from '../../core/api/endpoints';
import { ErrorState, Notice, Skeleton } from '../../ui/parts';
import { useStore, useT } from '../../ui/store';
import { hub } from '../hub';
import { AccountPages } from './AccountPages';
import { Passkeys } from './Passkeys';
import { Password } from './Password';
import { Recovery } from './Recovery';
import { Sessions } from './Sessions';
import { Totp } from './Totp';
import './account.css';

export function Security() {
  const t = useT();
  const asked = useStore(hub.enrol);
  const query = useQuery({ queryKey: ['security', 'all'], queryFn: () => account.security(hub.api) });
  if (query.isError && !query.data) return <ErrorState error={query.error} onRetry={() => void query.refetch()} />;
  if (!query.data) return <Skeleton lines={6} />;
  const s = query.data;
  const second = s.passkeys > 0 || s.totp;
  return (
    <AccountPages lead={t('security.lead')}><div className="security" data-testid="security">
      {(asked || s.required) && !second
        ? <Notice tone="warn" title={t('security.required')} testId="security-required">{t('security.required_text')}</Notice>
        : asked && s.assurance !== 'two' ? <Notice tone="warn" testId="security-weak">{t('security.weak')}</Notice> : null}
      <Passkeys />
      <Totp on={s.totp} />
      <Recovery left={s.recovery} possible={second} />
      <Password set={s.password} />
      <Sessions />
    </div></AccountPages>
  );
}
