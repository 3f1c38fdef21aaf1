// After the password: a code of the authenticator app, a passkey, or a recovery code.
import { asApiError } from '../../core/api/problem';
import type { Ticket } from '../../core/api/types';
import type { MessageKey } from '../../core/i18n/i18n';
import { Button } from '../../ui/parts';
import { useT } from '../../ui/store';
import { hub } from '../hub';
import { Proofs } from './Proofs';

export function SecondStep({ ticket, onDone, onBack }: { ticket: Ticket; onDone: () => void; onBack: (why: MessageKey | null) => void }) {
  const t = useT();
  const ended = (error: unknown) => {
    const over = asApiError(error).code === 'identity.ticket_ended';
    if (over) onBack('second.ended');
    return over;
  };
  return (
    <div className="signin" data-testid="second-step">
      <h2>{t('second.title')}</h2>
      <Proofs name="second" methods={ticket.methods} focus texts={{ passkey: 'second.passkey', submit: 'second.submit' }} onDone={onDone} onProblem={ended}
        prove={(given) => ('passkey' in given ? hub.secondPasskey(ticket.ticket) : 'password' in given ? Promise.reject(new Error('no second step')) : hub.second(ticket.ticket, given))}>
        <div className="signin-more"><Button variant="ghost" size="s" onClick={() => onBack(null)}>{t('common.back')}</Button></div>
      </Proofs>
    </div>
  );
}
