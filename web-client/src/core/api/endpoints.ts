// One function for each call of the hub that the screens need, so that paths stand in one file.
import type { ApiClient } from './client';
import type {
  AccessAnswer, Alert, Appointment, AuditPage, AuditPerson, AuditVerdict, Chart, Conversation, DeviceCheck, EmergencyAccess, MediaGrant, Me, Message, MessageBody, Notice, OpenedVisit, SignedIn, Visit,
} from './types';

const id = encodeURIComponent;

export const identity = {
  signIn: (api: ApiClient, email: string, password: string) =>
    api.post<SignedIn>('/api/identity/sign-in', { email, password }),
  exchange: (api: ApiClient, link: string) => api.post<SignedIn>('/api/identity/links/exchange', { link }),
  me: (api: ApiClient) => api.get<Me>('/api/identity/me'),
  /** Names and roles of subjects, for administrators. */
  names: (api: ApiClient, subjects: readonly string[]) =>
    api.get<{ people: Record<string, AuditPerson> }>(`/api/identity/names?of=${id(subjects.join(','))}`),
  /** What a user can see; with a patient, why they may or may not see that record. */
  decide: (api: ApiClient, user: string, patient: string) => api.post<AccessAnswer>('/api/identity/decide',
    patient === '' ? { user } : { user, action: 'read', resource: { kind: 'patient', id: patient } }),
  signOut: (api: ApiClient) => api.post<void>('/api/identity/sign-out'),
};

export const appointments = {
  day: (api: ApiClient, date?: string) =>
    api.get<{ appointments: Appointment[] }>(`/api/appointments/today${date ? `?date=${id(date)}` : ''}`),
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
  list: (api: ApiClient) => api.get<{ accesses: EmergencyAccess[] }>('/api/records/break-glass'),
  review: (api: ApiClient, access: string, review: string) =>
    api.post<void>(`/api/records/break-glass/${id(access)}/review`, { review }),
};

export const notices = {
  list: (api: ApiClient) => api.get<{ notifications: Notice[] }>('/api/notifications'),
  read: (api: ApiClient, notice: string) => api.post<void>(`/api/notifications/${id(notice)}/read`),
};

export const board = {
  alerts: (api: ApiClient, name: string) => api.get<{ alerts: Alert[] }>(`/api/notifications/alerts?board=${id(name)}`),
  acknowledge: (api: ApiClient, alert: string) =>
    api.post<Alert | undefined>(`/api/notifications/alerts/${id(alert)}/acknowledge`),
};

export const audit = {
  page: (api: ApiClient, query: string) => api.get<AuditPage>(`/api/tenants/audit?${query}`),
  verify: (api: ApiClient) => api.post<AuditVerdict>('/api/tenants/audit/verify'),
};
