// Emergency access: shown where a chart is refused for want of a care relationship. One patient, one hour, with a reason.
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { glass } from '../../core/api/endpoints';
import { Button, Notice } from '../../ui/parts';
import { useT } from '../../ui/store';
import { problemText } from '../words';
import { hub, queries } from '../hub';
import './breakglass.css';

const REASONS = ['emergency', 'covering', 'patient_request', 'safety', 'unlisted'] as const;

export function BreakGlass({ patient, onOpen }: { patient: string; onOpen: () => void }) {
  const t = useT();
  const [reason, setReason] = useState<string>('emergency');
  const [text, setText] = useState('');
  const open = useMutation({
    mutationFn: () => glass.begin(hub.api, patient, reason, text),
    onSuccess: () => { void queries.invalidateQueries({ queryKey: ['glass'] }); void queries.invalidateQueries({ queryKey: ['visit'] }); onOpen(); },
  });
  return (
    <form className="glass" data-testid="break-glass" onSubmit={(event) => { event.preventDefault(); open.mutate(); }}>
      <Notice tone="warn" title={t('glass.refused')}>{t('glass.what_happens')}</Notice>
      <label className="field"><span className="field-label">{t('glass.reason')}</span>
        <select className="field-input" value={reason} onChange={(event) => setReason(event.target.value)} data-testid="glass-reason">
          {REASONS.map((code) => <option key={code} value={code}>{t(`glass.reason_${code}`)}</option>)}
        </select>
      </label>
      <label className="field"><span className="field-label">{t('glass.text')}</span>
        <textarea className="field-input" value={text} rows={3} minLength={10} maxLength={1000} required onChange={(event) => setText(event.target.value)} data-testid="glass-text" />
      </label>
      {open.isError ? <Notice tone="danger">{problemText(t, open.error)}</Notice> : null}
      <Button type="submit" variant="danger" icon="alert" busy={open.isPending} data-testid="glass-open">{t('glass.open')}</Button>
    </form>
  );
}
