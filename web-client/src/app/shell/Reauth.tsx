// The session ended while somebody works: sign in again on top, and go on where one was.
import { Dialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { Button } from '../../ui/parts';
import { useStore, useT } from '../../ui/store';
import { hub, queries } from '../hub';
import { SignInForm } from '../signin/SignInForm';

export function Reauth() {
  const t = useT();
  const expired = useStore(hub.expired);
  return (
    <ModalOverlay className="overlay" isOpen={expired} isKeyboardDismissDisabled>
      <Modal className="modal">
        <Dialog className="dialog" role="alertdialog" data-testid="reauth">
          <Heading slot="title">{t('reauth.title')}</Heading>
          <p>{t('reauth.text')}</p>
          <SignInForm onDone={() => void queries.invalidateQueries()} />
          <Button variant="ghost" onClick={() => void hub.signOut()}>{t('menu.sign_out')}</Button>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
