// Ending a visit can't be undone, so it asks once.
import { Button } from '../../ui/parts';
import { useT } from '../../ui/store';
import { Sheet } from '../ui/Sheet';

export function EndDialog({ open, name, busy, onClose, onEnd }: { open: boolean; name: string; busy: boolean; onClose: () => void; onEnd: () => void }) {
  const t = useT();
  return (
    <Sheet open={open} title={t('consult.end_sure')} onClose={onClose} testId="end-dialog" alert>
      <p>{t('consult.end_text', { name })}</p>
      <div className="dialog-acts">
        <Button onClick={onClose}>{t('common.cancel')}</Button>
        {/* The dialog was opened to end the visit, so Enter does it. */}
        {/* eslint-disable-next-line jsx-a11y/no-autofocus */}
        <Button variant="danger" busy={busy} onClick={onEnd} data-testid="end-confirm" autoFocus>{t('consult.end_now')}</Button>
      </div>
    </Sheet>
  );
}
