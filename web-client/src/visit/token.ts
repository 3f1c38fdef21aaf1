// The guest's token for parts that send bytes themselves (file upload).
import { guestSession } from '../core/session/session';

export const guestToken = (): string | null => guestSession.read()?.token ?? null;
