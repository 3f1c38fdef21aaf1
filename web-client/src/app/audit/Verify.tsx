// The proof that nobody changed the trail: one button, one plain answer, and where it is broken when it is.
import { useMutation } from '@tanstack/react-query';
import { timeFormat } from '../../core/time/time';
import { audit } from '../../core/api/endpoints';
import type { AuditFinding } from '../../core/api/types';
import type { T } from '../../core/i18n/i18n';
import { Button, ErrorState, Notice } from '../../ui/parts';
import { useLanguage, useT } from '../../ui/store';
import { hub } from '../hub';

export function Verify() {
  const t = useT();
  const language = useLanguage();
  const check = useMutation({ mutationFn: () => audit.verify(hub.api) });
  const verdict = check.data;
  const signed = verdict?.vouched_at
    ? t('audit.vouched', { seq: verdict.vouched, at: timeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(verdict.vouched_at)) })
    : t('audit.not_vouched');
  return (
    <section className="audit-verify" aria-label={t('audit.verify_title')}>
      <div className="audit-verify-row card">
        <div><h2>{t('audit.verify_title')}</h2><p className="muted">{t('audit.verify_text')}</p></div>
        <Button icon="shield" busy={check.isPending} onClick={() => check.mutate()} data-testid="audit-verify">{t('audit.verify')}</Button>
      </div>
      <div aria-live="polite">
        {check.isError ? <ErrorState error={check.error} onRetry={() => check.mutate()} />
          : !verdict || check.isPending ? null
          : verdict.intact ? <Notice tone="good" title={t('audit.intact', { count: verdict.entries })} testId="audit-intact">{signed}</Notice>
          : (
            <Notice tone="danger" title={t('audit.broken')} testId="audit-broken">
              <p>{t('audit.broken_text')}</p>
              <ul className="audit-findings">{verdict.findings.map((f) => <li key={f.text}>{findingText(t, f)}</li>)}</ul>
            </Notice>
          )}
      </div>
    </section>
  );
}

function findingText(t: T, f: AuditFinding): string {
  const seq = f.seq ?? 0;
  switch (f.kind) {
    case 'altered': return t('audit.f_altered', { seq });
    case 'missing': return seq === f.until ? t('audit.f_missing', { seq }) : t('audit.f_missing_range', { seq, until: f.until ?? seq });
    case 'truncated': return t('audit.f_truncated', { seq });
    case 'rewritten': return t('audit.f_rewritten', { seq });
    case 'patients_altered': return t('audit.f_patients_altered', { seq });
    default: return t('audit.f_checkpoint', { text: f.text });
  }
}
