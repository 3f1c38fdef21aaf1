// A dialog: closes with Esc or outside, and gives the focus back.
import type { ReactNode } from 'react';
import './pages.css';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { Icon } from '../../ui/Icon';
import { useT } from '../../ui/store';

export function Sheet({ open, title, onClose, children, testId, alert = false, firm = false }: {
  open: boolean; title: string; onClose: () => void; children: ReactNode; testId: string; alert?: boolean; /** Only its buttons close it: what it shows is not shown again. */ firm?: boolean;
}) {
  const t = useT();
  return (
    <ModalOverlay className="overlay" isOpen={open} onOpenChange={(now) => { if (!now) onClose(); }} isDismissable={!firm} isKeyboardDismissDisabled={firm}>
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
