// What went wrong while signing in, in the reader's words.
import { asApiError } from '../../core/api/problem';
import type { MessageKey } from '../../core/i18n/i18n';

const BY_CODE: Record<string, MessageKey> = {
  'identity.sign_in_failed': 'signin.wrong',
  'identity.too_many_attempts': 'signin.too_many',
  'identity.passkey_refused': 'signin.passkey_refused',
  'identity.passkey_host': 'signin.passkey_host',
  'identity.code_wrong': 'second.wrong',
  'identity.ticket_ended': 'second.ended',
  'identity.password_wrong': 'stepup.password_wrong',
  'identity.password_weak': 'password.weak',
  'identity.password_length': 'password.length',
  'identity.last_credential': 'passkeys.last',
  'identity.passkeys_many': 'passkeys.many',
  'identity.email': 'address.wrong',
  'identity.email_same': 'address.same',
  'identity.busy': 'signin.busy',
  'auth.step_up': 'stepup.needed',
};

export function messageFor(error: unknown, otherwise: MessageKey = 'error.server'): MessageKey {
  const problem = asApiError(error);
  if (problem.status === 0) return problem.code === 'network' ? 'error.network' : 'signin.passkey_failed';
  return BY_CODE[problem.code] ?? (problem.status === 429 ? 'signin.too_many' : otherwise);
}
