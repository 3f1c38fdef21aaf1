import { describe, expect, it } from 'vitest';
import { fromBase64url, toBase64url } from './passkeys';

describe('base64url (RFC 4648, 5)', () => {
  it('goes there and back without padding, with the letters of URLs', () => {
    for (const [bytes, text] of [[[], ''], [[0xfb, 0xff], '-_8'], [[0xff, 0xfe, 0xfd, 0xfc], '__79_A']] as Array<[number[], string]>) {
      expect(toBase64url(Uint8Array.from(bytes).buffer)).toBe(text);
      expect([...fromBase64url(text)]).toEqual(bytes);
    }
  });
});
