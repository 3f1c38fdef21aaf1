// One function for each call of the hub that the screens need, so that paths stand in one file.
import type { ApiClient } from './client';
import type {
  AccessAnswer, Alert, Appointment, AuditPage, AuditPerson, AuditVerdict, AuthorizationRequest, Chart, Conversation, DeviceCheck, AccessRules, EmergencyAccess, GlassShow, MediaGrant, Me, Message, MessageBody, Notice, OAuthClient,
  OAuthMetadata, OpenedVisit, PasskeyInfo, Proved, Security, SessionInfo, SignedIn, SignInAnswer, SsoChange, SsoProvider, Visit,
} from './types';
import type { Finished, Started } from '../webauthn/passkeys';
import { segment as id } from './segment';

export const identity = {
  signIn: (api: ApiClient, email: string, password: string) =>
    api.post<SignInAnswer>('/api/identity/sign-in', { email, password }),
  second: (api: ApiClient, ticket: string, proof: { totp: string } | { recovery: string } | { passkey: Finished }) =>
    api.post<SignedIn>('/api/identity/sign-in/second', { ticket, ...proof }),
  secondPasskey: (api: ApiClient, ticket: string) => api.post<Started>('/api/identity/sign-in/second/passkey', { ticket }),
  passkeyStart: (api: ApiClient) => api.post<Started>('/api/identity/passkeys/authenticate/start'),
  passkeyFinish: (api: ApiClient, used: Finished) => api.post<SignedIn>('/api/identity/passkeys/authenticate/finish', used),
  requestLink: (api: ApiClient, email: string, browser: string) => api.post<void>('/api/identity/links/request', { email, browser }),
  forgotten: (api: ApiClient, email: string, browser: string) => api.post<void>('/api/identity/password/forgotten', { email, browser }),
  resetPassword: (api: ApiClient, link: string, next: string, more: { browser?: string; birth_date?: string } = {}) =>
    api.post<void>('/api/identity/password/reset', { link, new: next, ...more }),
  exchange: (api: ApiClient, link: string, more: { browser?: string; birth_date?: string } = {}) =>
    api.post<SignedIn>('/api/identity/links/exchange', { link, ...more }),
  /** Seals what this person's browsers keep on a device. */
  deviceKey: (api: ApiClient) => api.get<{ key: string }>('/api/identity/me/device-key'),
  me: (api: ApiClient) => api.get<Me>('/api/identity/me'),
  /** Names and roles of subjects, for administrators. */
  names: (api: ApiClient, subjects: readonly string[]) =>
    api.get<{ people: Record<string, AuditPerson> }>(`/api/identity/names?of=${encodeURIComponent(subjects.join(','))}`),
  /** What a user can see; with a patient, why they may or may not see that record. */
  rules: (api: ApiClient) => api.get<AccessRules>('/api/identity/access/rules'),
  decide: (api: ApiClient, user: string, patient: string) => api.post<AccessAnswer>('/api/identity/decide',
    patient === '' ? { user } : { user, action: 'read', resource: { kind: 'patient', id: patient } }),
  signOut: (api: ApiClient) => api.post<void>('/api/identity/sign-out'),
};

/** What a person signs in with, and the sessions they have. */
export const account = {
  security: (api: ApiClient) => api.get<Security>('/api/identity/me/security'),
  passkeys: (api: ApiClient) => api.get<{ passkeys: PasskeyInfo[] }>('/api/identity/passkeys'),
  addPasskey: (api: ApiClient) => api.post<Started>('/api/identity/passkeys/register/start'),
  passkeyMade: (api: ApiClient, made: Finished) => api.post<{ id: string }>('/api/identity/passkeys/register/finish', made),
  namePasskey: (api: ApiClient, passkey: string, name: string) => api.patch<void>(`/api/identity/passkeys/${id(passkey)}`, { name }),
  removePasskey: (api: ApiClient, passkey: string) => api.delete<void>(`/api/identity/passkeys/${id(passkey)}`),
  startTotp: (api: ApiClient) => api.post<{ secret: string; uri: string }>('/api/identity/totp/start'),
  confirmTotp: (api: ApiClient, code: string) => api.post<void>('/api/identity/totp/confirm', { code }),
  removeTotp: (api: ApiClient) => api.delete<void>('/api/identity/totp'),
  newRecovery: (api: ApiClient) => api.post<{ codes: string[] }>('/api/identity/recovery'),
  sessions: (api: ApiClient) => api.get<{ sessions: SessionInfo[] }>('/api/identity/sessions'),
  endSession: (api: ApiClient, session: string) => api.delete<void>(`/api/identity/sessions/${id(session)}`),
  endOthers: (api: ApiClient) => api.post<{ ended: number }>('/api/identity/sessions/end-others'),
  password: (api: ApiClient, next: string, current?: string) => api.post<void>('/api/identity/me/password', { new: next, ...(current ? { current } : {}) }),
  provePassword: (api: ApiClient, password: string) => api.post<Proved>('/api/identity/step-up/password', { password }),
  proveCode: (api: ApiClient, code: string) => api.post<Proved>('/api/identity/step-up/totp', { code }),
  provePasskeyStart: (api: ApiClient) => api.post<Started>('/api/identity/step-up/passkey/start'),
  provePasskey: (api: ApiClient, used: Finished) => api.post<Proved>('/api/identity/step-up/passkey', used),
};

export const appointments = {
  day: (api: ApiClient, date?: string) =>
    api.get<{ appointments: Appointment[] }>(`/api/appointments/today${date ? `?date=${encodeURIComponent(date)}` : ''}`),
};

export const visits = {
  open: (api: ApiClient, link: string, device: { id: string; name: string }, takeOver: boolean) =>
    api.post<OpenedVisit>('/api/visits/open', { link, device, ...(takeOver ? { take_over: true } : {}) }),
  get: (api: ApiClient, visit: string) => api.get<Visit>(`/api/visits/${id(visit)}`),
  list: (api: ApiClient, all: boolean) => api.get<{ visits: Visit[] }>(`/api/visits${all ? '?all=1' : ''}`),
  deviceCheck: (api: ApiClient, visit: string, check: DeviceCheck) =>
    api.post<Visit>(`/api/visits/${id(visit)}/device-check`, check),
  consent: (api: ApiClient, visit: string, textVersion: string, language: string) =>
    api.post<Visit>(`/api/visits/${id(visit)}/consent`, { accepted: true, text_version: textVersion, language }),
  act: (api: ApiClient, visit: string, action: 'admit' | 'hold' | 'end' | 'leave') =>
    api.post<Visit>(`/api/visits/${id(visit)}/${action}`),
  media: (api: ApiClient, visit: string) => api.post<MediaGrant>(`/api/visits/${id(visit)}/media`),
  join: (api: ApiClient, visit: string) => api.post<Visit>(`/api/visits/${id(visit)}/colleagues`),
  part: (api: ApiClient, visit: string, subject: string) => api.delete<Visit>(`/api/visits/${id(visit)}/colleagues/${id(subject)}`),
};

export const messaging = {
  conversation: (api: ApiClient, c: string) => api.get<Conversation>(`/api/messaging/conversations/${id(c)}`),
  page: (api: ApiClient, c: string, after: number, limit = 200) =>
    api.get<{ messages: Message[] }>(`/api/messaging/conversations/${id(c)}/messages?after=${after}&limit=${limit}`),
  send: (api: ApiClient, c: string, clientId: string, body: MessageBody) =>
    api.post<{ message: Message; duplicate: boolean }>(
      `/api/messaging/conversations/${id(c)}/messages`, { client_id: clientId, body }, { key: clientId }),
  receipt: (api: ApiClient, c: string, upto: { delivered_upto?: number; read_upto?: number }) =>
    api.post<void>(`/api/messaging/conversations/${id(c)}/receipts`, upto),
};

export const records = {
  chart: (api: ApiClient, patient: string) => api.get<Chart>(`/api/records/patients/${id(patient)}/chart`),
};

/** Emergency access to one patient's record. */
export const glass = {
  begin: (api: ApiClient, patient: string, reason: string, text: string) =>
    api.post<EmergencyAccess>(`/api/records/patients/${id(patient)}/break-glass`, { reason_code: reason, text }),
  end: (api: ApiClient, patient: string) => api.post<void>(`/api/records/patients/${id(patient)}/break-glass/end`),
  mine: (api: ApiClient) => api.get<{ accesses: EmergencyAccess[] }>('/api/records/break-glass/mine'),
  list: (api: ApiClient, show: GlassShow) => api.get<{ accesses: EmergencyAccess[] }>(`/api/records/break-glass?show=${show}`),
  assign: (api: ApiClient, access: string, assignee: string | null) => api.post<void>(`/api/records/break-glass/${id(access)}/assign`, { assignee }),
  review: (api: ApiClient, access: string, review: string) =>
    api.post<void>(`/api/records/break-glass/${id(access)}/review`, { review }),
};

export const notices = {
  list: (api: ApiClient) => api.get<{ notifications: Notice[] }>('/api/notifications'),
  read: (api: ApiClient, notice: string) => api.post<void>(`/api/notifications/${id(notice)}/read`),
};

export const board = {
  alerts: (api: ApiClient, name: string) => api.get<{ alerts: Alert[] }>(`/api/notifications/alerts?board=${encodeURIComponent(name)}`),
  acknowledge: (api: ApiClient, alert: string) =>
    api.post<Alert | undefined>(`/api/notifications/alerts/${id(alert)}/acknowledge`),
};

export const audit = {
  page: (api: ApiClient, query: string) => api.get<AuditPage>(`/api/tenants/audit?${query}`),
  patients: (api: ApiClient, seq: number) => api.get<{ patients: string[] }>(`/api/tenants/audit/${id(String(seq))}/patients`),
  verify: (api: ApiClient) => api.post<AuditVerdict>('/api/tenants/audit/verify'),
};

export const oauth = {
  request: (api: ApiClient, request: string) => api.get<AuthorizationRequest>(`/api/identity/authorizations/${id(request)}`),
  decide: (api: ApiClient, request: string, decision: { allow: boolean; scopes: string[]; patient?: string }) =>
    api.post<{ redirect: string }>(`/api/identity/authorizations/${id(request)}/decision`, decision),
  silent: (api: ApiClient, request: string) => api.post<{ redirect: string }>(`/api/identity/authorizations/${id(request)}/silent`),
  clients: (api: ApiClient) => api.get<{ clients: OAuthClient[] }>('/api/identity/clients'),
  create: (api: ApiClient, metadata: OAuthMetadata) => api.post<OAuthClient>('/api/identity/clients', metadata),
  update: (api: ApiClient, client: string, metadata: OAuthMetadata & { active: boolean }) =>
    api.put<OAuthClient>(`/api/identity/clients/${id(client)}`, metadata),
  newSecret: (api: ApiClient, client: string) => api.post<OAuthClient>(`/api/identity/clients/${id(client)}/secret`),
  remove: (api: ApiClient, client: string) => api.delete<void>(`/api/identity/clients/${id(client)}`),
};

export const sso = {
  buttons: (api: ApiClient) => api.get<{ providers: Array<{ id: string; name: string }> }>('/api/identity/sso'),
  /** Fresh: the provider asks who it is although it knows them. */
  start: (api: ApiClient, provider: string, fresh = false) =>
    api.post<{ redirect: string; browser: string }>(`/api/identity/sso/${id(provider)}/start${fresh ? '?fresh=true' : ''}`),
  finish: (api: ApiClient, answer: SsoAnswer) => api.post<SignedIn>('/api/identity/sso/finish', answer),
  providers: (api: ApiClient) => api.get<{ providers: SsoProvider[] }>('/api/identity/sso-providers'),
  add: (api: ApiClient, change: SsoChange) => api.post<SsoProvider>('/api/identity/sso-providers', change),
  update: (api: ApiClient, provider: string, change: SsoChange) => api.put<SsoProvider>(`/api/identity/sso-providers/${id(provider)}`, change),
  remove: (api: ApiClient, provider: string) => api.delete<void>(`/api/identity/sso-providers/${id(provider)}`),
};

/** What an outside provider sent back, and the secret of the tab that asked. */
export interface SsoAnswer { state: string; code: string; iss?: string; browser: string }
