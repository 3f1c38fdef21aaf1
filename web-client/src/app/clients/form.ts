// What the register's form says, and the metadata (RFC 7591) it becomes.
import type { OAuthClient, OAuthMetadata } from '../../core/api/types';

export type Kind = 'public' | 'secret' | 'key' | 'backend';

export interface Fields { kind: Kind; name: string; redirects: string; launch: string; logout: string; bound: boolean; scope: string; keys: string }

export const DEFAULT_SCOPES: Record<Kind, string> = {
  public: 'openid fhirUser profile launch launch/patient offline_access patient/*.rs',
  secret: 'openid fhirUser profile launch launch/patient offline_access patient/*.rs',
  key: 'openid fhirUser profile launch launch/patient offline_access patient/*.rs',
  backend: 'system/*.rs',
};

const lines = (text: string) => text.split(/\s+/).filter(Boolean);

/** Answers null where the keys are neither an address nor a JSON Web Key Set. */
export function metadataOf(f: Fields): OAuthMetadata | null {
  const backend = f.kind === 'backend';
  const keyed = backend || f.kind === 'key';
  const all: OAuthMetadata = {
    client_name: f.name.trim(),
    token_endpoint_auth_method: keyed ? 'private_key_jwt' : f.kind === 'secret' ? 'client_secret_basic' : 'none',
    grant_types: backend ? ['client_credentials'] : ['authorization_code', 'refresh_token'],
    scope: lines(f.scope).join(' '),
  };
  if (!backend) all.redirect_uris = lines(f.redirects);
  if (!backend && f.launch.trim()) all.initiate_login_uri = f.launch.trim();
  if (!backend && f.logout.trim()) all.backchannel_logout_uri = f.logout.trim();
  if (f.bound) all.dpop_bound_access_tokens = true;
  if (keyed) {
    const text = f.keys.trim();
    if (/^https?:\/\//.test(text)) all.jwks_uri = text;
    else {
      try {
        all.jwks = JSON.parse(text) as object;
      } catch {
        return null;
      }
    }
  }
  return all;
}

export function kindOf(client: OAuthClient): Kind {
  if (client.grant_types.includes('client_credentials')) return 'backend';
  return client.token_endpoint_auth_method === 'none' ? 'public' : client.token_endpoint_auth_method === 'private_key_jwt' ? 'key' : 'secret';
}

/** A client's metadata without what the server adds: what an update sends back. */
export function updateOf({ client_id: _id, created_at: _created, updated_at: _updated, client_secret: _secret, ...rest }: OAuthClient, active: boolean) {
  return { ...rest, active };
}
