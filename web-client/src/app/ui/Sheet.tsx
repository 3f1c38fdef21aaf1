// A dialog: closes with Esc or outside, and gives the focus back.
import type { ReactNode } from 'react';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';

export function Sheet({ open, title, onClose, children, testId, alert = false, firm = false }: {
  open: boolean; title: string; onClose: () => void; children: ReactNode; testId: string; alert?: boolean; /** Only its buttons close it: what it shows is not shown again. */ firm?: boolean;
}) {
  return (
    <ModalOverlay className="overlay" isOpen={open} onOpenChange={(now) => { if (!now) onClose(); }} isDismissable={!firm} isKeyboardDismissDisabled={firm}>
      <Modal className="modal">
        <Dialog className="dialog" role={alert ? 'alertdialog' : 'dialog'} data-testid={testId}>
          <Heading slot="title">{title}</Heading>
          {children}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
