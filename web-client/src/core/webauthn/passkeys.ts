// Passkeys in the browser: JSON of the server to the browser's own types and back (WebAuthn Level 3, "serialization").

type Encoded = Record<string, unknown>;
export interface Started { ceremony: string; options: Encoded }
export interface Finished { ceremony: string; credential: Encoded }

export function toBase64url(bytes: ArrayBuffer): string {
  let text = '';
  for (const byte of new Uint8Array(bytes)) text += String.fromCharCode(byte);
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

export function fromBase64url(text: string): Uint8Array<ArrayBuffer> {
  const raw = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
  return Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
}

/** Whether this page may use passkeys at all: a secure origin with a name, in a browser that knows them. */
export function passkeysHere(where: Pick<Location, 'hostname'> = location): boolean {
  const numbers = /^[\d.]+$|^\[/.test(where.hostname);
  return !numbers && globalThis.isSecureContext && typeof globalThis.PublicKeyCredential === 'function';
}

export async function autofillHere(): Promise<boolean> {
  if (!passkeysHere()) return false;
  return (await PublicKeyCredential.isConditionalMediationAvailable?.().catch(() => false)) ?? false;
}

/** The person closed the browser's dialog, or it took too long: nothing to complain about. */
export const wasCancelled = (error: unknown): boolean => error instanceof DOMException && (error.name === 'NotAllowedError' || error.name === 'AbortError');
/** The device has a passkey of this account already. */
export const isKnownHere = (error: unknown): boolean => error instanceof DOMException && error.name === 'InvalidStateError';

const descriptors = (list: unknown): PublicKeyCredentialDescriptor[] =>
  ((list ?? []) as Array<{ id: string; transports?: AuthenticatorTransport[] }>).map((d) => ({
    type: 'public-key', id: fromBase64url(d.id), ...(d.transports?.length ? { transports: d.transports } : {}),
  }));

export async function makePasskey(started: Started): Promise<Finished> {
  const o = started.options as Encoded & { challenge: string; user: { id: string } };
  const publicKey = {
    ...o, challenge: fromBase64url(o.challenge), user: { ...o.user, id: fromBase64url(o.user.id) }, excludeCredentials: descriptors(o['excludeCredentials']),
  } as unknown as PublicKeyCredentialCreationOptions;
  const made = (await navigator.credentials.create({ publicKey })) as PublicKeyCredential | null;
  if (!made) throw new DOMException('', 'NotAllowedError');
  const response = made.response as AuthenticatorAttestationResponse;
  return {
    ceremony: started.ceremony,
    credential: {
      id: made.id, rawId: made.id, type: made.type,
      response: {
        clientDataJSON: toBase64url(response.clientDataJSON), attestationObject: toBase64url(response.attestationObject),
        transports: response.getTransports?.() ?? [],
      },
    },
  };
}

export async function askPasskey(started: Started, how: { signal?: AbortSignal; autofill?: boolean } = {}): Promise<Finished> {
  const o = started.options as Encoded & { challenge: string };
  const publicKey = { ...o, challenge: fromBase64url(o.challenge), allowCredentials: descriptors(o['allowCredentials']) } as unknown as PublicKeyCredentialRequestOptions;
  const used = (await navigator.credentials.get({
    publicKey, ...(how.signal ? { signal: how.signal } : {}), ...(how.autofill ? { mediation: 'conditional' as const } : {}),
  })) as PublicKeyCredential | null;
  if (!used) throw new DOMException('', 'NotAllowedError');
  const response = used.response as AuthenticatorAssertionResponse;
  return {
    ceremony: started.ceremony,
    credential: {
      id: used.id, rawId: used.id, type: used.type,
      response: {
        clientDataJSON: toBase64url(response.clientDataJSON), authenticatorData: toBase64url(response.authenticatorData),
        signature: toBase64url(response.signature), userHandle: response.userHandle ? toBase64url(response.userHandle) : null,
      },
    },
  };
}
