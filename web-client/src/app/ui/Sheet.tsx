// A dialog: closes with Esc, or outside as long as nothing was typed, and gives the focus back.
import { useEffect, useState, type ReactNode } from 'react';
import './pages.css';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { Icon } from '../../ui/Icon';
import { useT } from '../../ui/store';

export function Sheet({ open, title, onClose, children, testId, alert = false, firm = false }: {
  open: boolean; title: string; onClose: () => void; children: ReactNode; testId: string; alert?: boolean; /** Only its buttons close it: what it shows is not shown again. */ firm?: boolean;
}) {
  const t = useT();
  // A slip of the hand beside the dialog does not throw away what was typed into it.
  const [typed, setTyped] = useState(false);
  useEffect(() => {
    if (!open) return;
    const note = () => setTyped(true);
    document.addEventListener('input', note);
    return () => { document.removeEventListener('input', note); setTyped(false); };
  }, [open]);
  return (
    <ModalOverlay className="overlay" isOpen={open} onOpenChange={(now) => { if (!now) onClose(); }} isDismissable={!firm && !typed} isKeyboardDismissDisabled={firm}>
      <Modal className="modal">
        <Dialog className="dialog" role={alert ? 'alertdialog' : 'dialog'} data-testid={testId}>
          <header className="sheet-head">
            <Heading slot="title">{title}</Heading>
            <button type="button" className="icon-btn" onClick={onClose} aria-label={t('common.close')} data-testid="sheet-close"><Icon name="close" /></button>
          </header>
          {children}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
