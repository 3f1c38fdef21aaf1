// A section of the security page, and the one way its acts run: busy, problem, done.
import { useState, type ReactNode } from 'react';
import type { MessageKey } from '../../core/i18n/i18n';
import { isKnownHere, wasCancelled } from '../../core/webauthn/passkeys';
import { Icon, type IconName } from '../../ui/Icon';
import { Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { messageFor } from '../signin/messages';
import { queries } from '../hub';

export function Part({ icon, title, text, state, children, testId, problem }: {
  icon: IconName; title: MessageKey; text: MessageKey; state?: ReactNode; children?: ReactNode; testId: string; problem?: MessageKey | null;
}) {
  const t = useT();
  return (
    <section className="sec-part card" data-testid={testId} aria-labelledby={`${testId}-title`}>
      <header>
        <span className="sec-icon mark"><Icon name={icon} /></span>
        <div><h2 id={`${testId}-title`}>{t(title)}</h2><p className="muted small">{t(text)}</p></div>
        {state}
      </header>
      {problem ? <Notice tone="danger" testId={`${testId}-error`}>{t(problem)}</Notice> : null}
      {children}
    </section>
  );
}

export function useAct(): { busy: boolean; problem: MessageKey | null; run: (act: () => Promise<unknown>) => Promise<boolean> } {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<MessageKey | null>(null);
  const run = async (act: () => Promise<unknown>): Promise<boolean> => {
    setBusy(true);
    setProblem(null);
    try {
      await act();
      return true;
    } catch (error) {
      if (!wasCancelled(error)) setProblem(isKnownHere(error) ? 'passkeys.known' : messageFor(error));
      return false;
    } finally {
      setBusy(false);
      void queries.invalidateQueries({ queryKey: ['security'] });
    }
  };
  return { busy, problem, run };
}
