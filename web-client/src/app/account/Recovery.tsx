// Recovery codes: shown once, to be kept away from the computer.
import { useState } from 'react';
import { account } from '../../core/api/endpoints';
import { CopyButton } from '../../ui/CopyButton';
import { Button } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub } from '../hub';
import { Sheet } from '../ui/Sheet';
import { Part, useAct } from './Part';

const FEW = 3;

export function Recovery({ left, possible }: { left: number; possible: boolean }) {
  const t = useT();
  const { busy, problem, run } = useAct();
  const [codes, setCodes] = useState<string[] | null>(null);
  const text = (codes ?? []).join('\n');
  const save = () => {
    const url = URL.createObjectURL(new Blob([`${t('recovery.file')}\n\n${text}\n`], { type: 'text/plain' }));
    const link = document.createElement('a');
    link.href = url;
    link.download = 'recovery-codes.txt';
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  return (
    <Part icon="shield" title="recovery.title" text="recovery.text" testId="recovery" problem={problem}
      state={possible ? <span className="chip" data-tone={left < FEW ? 'warn' : 'info'} data-testid="recovery-left" data-left={left}>{t('recovery.left', { count: left })}</span> : null}>
      {possible
        ? <Button busy={busy} onClick={() => void run(async () => setCodes((await account.newRecovery(hub.api)).codes))} data-testid="recovery-new">{t(left > 0 ? 'recovery.renew' : 'recovery.make')}</Button>
        : <p className="muted small">{t('recovery.first')}</p>}
      <Sheet open={codes !== null} title={t('recovery.title')} onClose={() => setCodes(null)} testId="recovery-dialog" firm>
        <p>{t('recovery.once')}</p>
        <ol className="sec-codes" data-testid="recovery-codes">{codes?.map((code) => <li key={code}><code>{code}</code></li>)}</ol>
        <div className="sec-acts">
          <Button icon="file" onClick={save} data-testid="recovery-save">{t('recovery.save')}</Button>
          <CopyButton text={text} words={t('recovery.copy')} testId="recovery-copy" />
          <Button icon="note" onClick={() => window.print()} data-testid="recovery-print">{t('recovery.print')}</Button>
        </div>
        <div className="dialog-acts"><Button variant="primary" onClick={() => setCodes(null)} data-testid="recovery-done">{t('recovery.done')}</Button></div>
      </Sheet>
    </Part>
  );
}
