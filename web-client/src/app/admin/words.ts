// The server's names of rules are the ends of our keys; a name this client does not know yet is shown as it is.
import type { MessageKey } from '../../core/i18n/i18n';
import type { useT } from '../../ui/store';

export type Words = ReturnType<typeof useT>;
export const word = (t: Words, part: string, name: string) => { const key = `roles.${part}_${name}`; const text = t(key as MessageKey); return text === key ? name : text; };
