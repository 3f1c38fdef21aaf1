import { describe, expect, it } from 'vitest';
import { kindOf, metadataOf, updateOf, type Fields } from './form';

const fields: Fields = { kind: 'public', name: ' Growth ', redirects: 'https://a.example/cb\nhttps://b.example/cb ', launch: '', logout: '', bound: false, scope: ' openid   launch ', keys: '' };

describe('the form of an application', () => {
  it('becomes metadata of its kind', () => {
    expect(metadataOf(fields)).toEqual({
      client_name: 'Growth', token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid launch', redirect_uris: ['https://a.example/cb', 'https://b.example/cb'],
    });
    expect(metadataOf({ ...fields, kind: 'backend', keys: 'https://a.example/keys' })).toEqual({
      client_name: 'Growth', token_endpoint_auth_method: 'private_key_jwt', grant_types: ['client_credentials'], scope: 'openid launch', jwks_uri: 'https://a.example/keys',
    });
    expect(metadataOf({ ...fields, kind: 'key', keys: '{"keys":[]}' })).toMatchObject({ jwks: { keys: [] } });
    expect(metadataOf({ ...fields, kind: 'key', keys: 'nonsense' })).toBeNull();
  });

  it('sends back what was there, and no secret', () => {
    const client = { client_id: 'x', active: true, created_at: 'a', updated_at: 'b', client_secret: 's', client_name: 'n', token_endpoint_auth_method: 'none' as const, grant_types: ['authorization_code'], scope: 'openid' };
    expect(updateOf(client, false)).toEqual({ active: false, client_name: 'n', token_endpoint_auth_method: 'none', grant_types: ['authorization_code'], scope: 'openid' });
    expect(kindOf(client)).toBe('public');
  });
});
