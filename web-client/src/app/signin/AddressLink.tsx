// The two links of a new e-mail address: the one that proves it, and the one by which the old address takes it back. Gone from
// the address bar before anything else happens; what they do is done by a button, which no mail scanner presses.
import { useEffect, useState } from 'react';
import { account } from '../account/api';
import { asApiError, type ApiError } from '../../core/api/problem';
import type { MessageKey } from '../../core/i18n/i18n';
import { addressSecret, takeLink } from '../../core/session/session';
import { Icon } from '../../ui/Icon';
import { LanguagePicker } from '../../ui/LanguagePicker';
import { Brand, Button } from '../../ui/parts';
import { useT, useTitle } from '../../ui/store';
import { hub } from '../hub';

/** Outside the component: an effect may run twice, the address bar has it once. */
let link: string | null = null;

const PROBLEMS: Record<string, [title: MessageKey, text: MessageKey]> = {
  'link.used': ['address.used', 'address.used_text'],
  'link.other_browser': ['enter.other_browser', 'address.other_browser_text'],
  'identity.email_taken': ['address.taken', 'address.taken_text'],
  network: ['error.title', 'error.network'],
};

export function AddressConfirm() {
  return <AddressLink kind="confirm" act={async (secret) => { await account.confirmEmail(hub.api, secret, addressSecret.read()); addressSecret.clear(); }} />;
}

export function AddressUndo() {
  return <AddressLink kind="undo" act={(secret) => account.undoEmail(hub.api, secret)} />;
}

function AddressLink({ kind, act }: { kind: 'confirm' | 'undo'; act: (secret: string) => Promise<void> }) {
  const t = useT();
  const [busy, setBusy] = useState(false);
  const [done, setDone] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  useTitle(t('address.title'));
  useEffect(() => { link = takeLink() ?? link; }, []);
  const go = () => {
    setBusy(true);
    act(link ?? '').then(() => setDone(true), (problem: unknown) => setError(asApiError(problem))).finally(() => setBusy(false));
  };
  const [title, text] = PROBLEMS[error?.code ?? ''] ?? ['enter.expired', 'address.expired_text'];
  return (
    <div className="door">
      <header className="door-top"><Brand /><LanguagePicker /></header>
      <main className="door-card card">
        {error ? (
          <div className="empty" role="alert" data-testid="address-problem" data-code={error.code}>
            <span className="empty-icon" data-tone="warn"><Icon name="link" size={26} /></span>
            <h1>{t(title)}</h1>
            <p>{t(text)}</p>
            <a className="btn" data-variant="primary" href="/">{t('enter.sign_in')}</a>
          </div>
        ) : done ? (
          <div className="empty" role="status" data-testid="address-done">
            <span className="empty-icon"><Icon name="check" size={26} /></span>
            <h1>{t(`address.${kind}_done`)}</h1>
            <p>{t(`address.${kind}_done_text`)}</p>
            <a className="btn" data-variant="primary" href="/">{t('enter.sign_in')}</a>
          </div>
        ) : (
          <div className="empty">
            <h1>{t(`address.${kind}_title`)}</h1>
            <p>{t(`address.${kind}_text`)}</p>
            <Button variant="primary" size="l" busy={busy} onClick={go} data-testid={`address-${kind}`}>{t(`address.${kind}_act`)}</Button>
          </div>
        )}
      </main>
    </div>
  );
}
