// What the patient agrees to, in plain words, with its version. Nothing is ticked in advance.
import { useState } from 'react';
import { asApiError } from '../core/api/problem';
import type { Visit } from '../core/api/types';
import { CONSENT_VERSION } from '../core/visit/guest';
import type { MessageKey } from '../core/i18n/i18n';
import type { IconName } from '../ui/Icon';
import { Icon } from '../ui/Icon';
import { Button, Notice } from '../ui/parts';
import { useLanguage, useT } from '../ui/store';
import { Heading, Page } from './Page';

const POINTS: ReadonlyArray<[IconName, MessageKey, MessageKey]> = [
  ['camera', 'visit.consent.video', 'visit.consent.video_text'],
  ['shield', 'visit.consent.private', 'visit.consent.private_text'],
  ['note', 'visit.consent.record', 'visit.consent.record_text'],
  ['door', 'visit.consent.stop', 'visit.consent.stop_text'],
];

export function ConsentScreen({ visit, clinic, onBack, onAccept }: {
  visit: Visit; clinic: string | null; onBack: () => void; onAccept: (language: string) => Promise<void>;
}) {
  const t = useT();
  const language = useLanguage();
  const [agreed, setAgreed] = useState(false);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const accept = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await onAccept(language);
    } catch (error) {
      setProblem(asApiError(error).status === 0 ? t('error.network') : t('error.server'));
      setBusy(false);
    }
  };
  return (
    <Page clinic={clinic} step={2} onBack={onBack} flow
      action={<>{problem ? <Notice tone="danger">{problem}</Notice> : null}<Button variant="primary" size="l" busy={busy} disabled={!agreed} onClick={() => void accept()} data-testid="consent-accept">{t('visit.consent.accept')}</Button></>}>
      <Heading>{t('visit.consent.title')}</Heading>
      <p className="lead">{t('visit.consent.lead', { name: visit.host.name })}</p>
      <ul className="points">
        {POINTS.map(([icon, title, text]) => (
          <li key={title}><span className="point-icon"><Icon name={icon} /></span><div><h2>{t(title)}</h2><p>{t(text)}</p></div></li>
        ))}
      </ul>
      <label className="agree card">
        <input type="checkbox" checked={agreed} onChange={(e) => setAgreed(e.target.checked)} data-testid="consent-check" />
        <span>{t('visit.consent.agree')}</span>
      </label>
      <p className="muted small">{t('visit.consent.version', { version: CONSENT_VERSION })}</p>
    </Page>
  );
}
