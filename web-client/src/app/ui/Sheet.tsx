// A dialog: closes with Esc or outside, and gives the focus back.
import type { ReactNode } from 'react';
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';

export function Sheet({ open, title, onClose, children, testId, alert = false }: {
  open: boolean; title: string; onClose: () => void; children: ReactNode; testId: string; alert?: boolean;
}) {
  return (
    <ModalOverlay className="overlay" isOpen={open} onOpenChange={(now) => { if (!now) onClose(); }} isDismissable>
      <Modal className="modal">
        <Dialog className="dialog" role={alert ? 'alertdialog' : 'dialog'} data-testid={testId}>
          <Heading slot="title">{title}</Heading>
          {children}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
