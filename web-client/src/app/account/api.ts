// The calls of everyone's own pages.
import type { ApiClient } from '../../core/api/client';
import { segment as id } from '../../core/api/segment';

export interface Profile {
  name: string; email: string;
  /** Asked for, and not yet proved by the link that went there. */
  new_email: string | null;
  language: string | null; zone: string | null; phone: string | null; pronouns: string | null;
  defaults: { language: string; zone: string };
  /** Asked in, and has not yet said how they will sign in. */
  invited: boolean;
  has_record: boolean;
}
export type ProfileEdit = Pick<Profile, 'name' | 'language' | 'zone' | 'phone' | 'pronouns'>;
export interface Preferences {
  theme: 'auto' | 'light' | 'dark'; text_size: 'normal' | 'large' | 'larger' | 'largest'; contrast: 'auto' | 'more'; clock: 'auto' | '12' | '24';
  arrival_sound: boolean; mail_notices: boolean; captions: boolean;
}
export interface LogLine { at: string; who: { name?: string; role: string; you: boolean }; action: string; what: string[]; outcome: string; emergency?: boolean }
export interface Log { entries: LogLine[]; next: number | null }
export interface Proxy {
  id: string; patient_id: string; patient_name?: string; name: string; email: string; relationship: string; scope: string[];
  state: 'asked' | 'active' | 'ended' | 'over'; granted_at: string; ends_at?: string; ends_with_childhood: boolean;
}
export interface NewProxy { email: string; name: string; relationship: string; scope: string[]; until?: string }
export interface ConnectedApp { id: string; name: string; scopes: string[] }

export const account = {
  profile: (api: ApiClient) => api.get<Profile>('/api/identity/me/profile'),
  save: (api: ApiClient, edit: ProfileEdit) => api.put<Profile>('/api/identity/me/profile', edit),
  changeEmail: (api: ApiClient, email: string, browser: string) => api.post<void>('/api/identity/me/email', { email, browser }),
  keepEmail: (api: ApiClient) => api.delete<void>('/api/identity/me/email'),
  confirmEmail: (api: ApiClient, link: string, browser: string | null) => api.post<void>('/api/identity/email/confirm', { link, browser }),
  undoEmail: (api: ApiClient, link: string) => api.post<void>('/api/identity/email/undo', { link }),
  preferences: (api: ApiClient) => api.get<Preferences>('/api/identity/me/preferences'),
  prefer: (api: ApiClient, all: Preferences) => api.put<Preferences>('/api/identity/me/preferences', all),
  accept: (api: ApiClient, how: { name: string; password?: string }) => api.post<Profile>('/api/identity/me/invitation', how),
  log: (api: ApiClient, after?: number) => api.get<Log>(`/api/identity/me/access-log?limit=50${after === undefined ? '' : `&after=${after}`}`),
  logFile: (api: ApiClient, format: 'csv' | 'fhir') => api.blob(`/api/identity/me/access-log/${format}`),
  proxies: (api: ApiClient) => api.get<{ proxies: Proxy[] }>('/api/identity/proxies'),
  actingFor: (api: ApiClient) => api.get<{ proxies: Proxy[] }>('/api/identity/proxies/mine'),
  grant: (api: ApiClient, proxy: NewProxy) => api.post<Proxy>('/api/identity/proxies', proxy),
  acceptProxy: (api: ApiClient, proxy: string) => api.post<Proxy>(`/api/identity/proxies/${id(proxy)}/accept`),
  endProxy: (api: ApiClient, proxy: string) => api.delete<void>(`/api/identity/proxies/${id(proxy)}`),
  /** Only where the clinic lets applications in; absent otherwise. */
  apps: (api: ApiClient) => api.get<{ apps: ConnectedApp[] }>('/api/identity/me/apps'),
  narrowApp: (api: ApiClient, app: string, without: string[]) => api.patch<void>(`/api/identity/me/apps/${id(app)}`, { without }),
  endApp: (api: ApiClient, app: string) => api.delete<void>(`/api/identity/me/apps/${id(app)}`),
};
