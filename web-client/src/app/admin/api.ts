// The calls of the administrators' pages.
import type { ApiClient } from '../../core/api/client';
import type { Role } from '../../core/api/types';
import { segment as id } from '../../core/api/segment';

export type Standing = 'active' | 'invited' | 'expired' | 'locked';
export interface Person {
  id: string; email: string; name: string; roles: Role[]; standing: Standing; practitioner_id?: string; patient_id?: string;
  created_at: string; invited_at?: string; invitation_ends?: string;
}
export interface PersonDetail extends Person { sessions: number; seen_at?: string }
export interface Candidate { id: string; name: string; birth_date?: string }
export type Act = 'lock' | 'unlock' | 'end-sessions' | 'reset' | 'invite' | 'withdraw';
export const ROLES = ['admin', 'clinician', 'staff', 'patient'] as const satisfies readonly Role[];

export interface Quotas { users: number | null; storage_bytes: number | null; messages_per_day: number | null }
export interface Clinic {
  id: number; slug: string; name: string; zone: string; status: 'active' | 'suspended' | 'deleting'; home: boolean; address: string;
  domains: string[]; quotas: Quotas; delete_at?: string;
}
export interface ClinicDetail extends Clinic { usage: { users: number; storage_bytes: number; messages_today: number } }
export interface NewClinic { slug: string; name: string; zone: string; admin: { name: string; email: string } }
export interface MadeClinic extends Clinic { admin?: { link: string; email: string } }
export interface Certificate { slug: string; erased_at: string; rows: number | null; files: number | null }

export interface Settings { require_two_factors: boolean; relationship_required: boolean; link_birth_date: boolean; idle_minutes: number; majority_age: number; language: string; invitation_days: number }
export interface Standings { settings: Settings; version: number; defaults: Settings }
export interface Version { version: number; at: string; actor: string; settings: Settings }
export interface Export {
  id: string; state: 'running' | 'done' | 'failed' | 'removed'; sealed: boolean; asked_at: string; step: string; steps_done: number;
  steps: number; bytes: number; sha256?: string; until?: string;
}

export const people = {
  list: (api: ApiClient, search: string, role: string, after?: string) =>
    api.get<{ users: Person[]; next: string | null }>(`/api/identity/users?limit=50&search=${encodeURIComponent(search)}&role=${encodeURIComponent(role)}${after ? `&after=${encodeURIComponent(after)}` : ''}`),
  one: (api: ApiClient, person: string) => api.get<PersonDetail>(`/api/identity/users/${id(person)}`),
  invite: (api: ApiClient, who: { email: string; name: string; roles: Role[] }) => api.post<Person>('/api/identity/users', who),
  edit: (api: ApiClient, person: string, edit: { name?: string; email?: string; roles?: Role[]; practitioner_id?: string; patient_id?: string }) =>
    api.patch<Person>(`/api/identity/users/${id(person)}`, edit),
  act: (api: ApiClient, person: string, act: Act) => api.post<Person>(`/api/identity/users/${id(person)}/${act}`),
  records: (api: ApiClient, kind: string, search: string) =>
    api.get<{ records: Candidate[] }>(`/api/identity/records?kind=${encodeURIComponent(kind)}&search=${encodeURIComponent(search)}`),
};

export interface OwnRole { id: string; role: Role; version: number; name: string; permissions: string[]; changed_at: string; changed_by: string; people?: number }
/** One permission that a role of the clinic's own can have: of a class of the record, or of a kind of everything else. */
export interface RoleChoice { permission: string; of: Role; class?: string; kind?: string; act: string; breadth?: string }
export const ownRoles = {
  list: (api: ApiClient) => api.get<{ roles: OwnRole[]; choices: RoleChoice[] }>('/api/identity/roles'),
  make: (api: ApiClient, role: { name: string; permissions: string[] }) => api.post<OwnRole>('/api/identity/roles', role),
  change: (api: ApiClient, role: string, edit: { name: string; permissions: string[]; version: number }) => api.put<OwnRole>(`/api/identity/roles/${id(role)}`, edit),
  remove: (api: ApiClient, role: string) => api.delete<void>(`/api/identity/roles/${id(role)}`),
};

export const clinics = {
  current: (api: ApiClient) => api.get<{ slug: string; home: boolean }>('/api/tenants/current'),
  list: (api: ApiClient) => api.get<{ clinics: Clinic[] }>('/api/tenants'),
  one: (api: ApiClient, clinic: number) => api.get<ClinicDetail>(`/api/tenants/${clinic}`),
  create: (api: ApiClient, clinic: NewClinic) => api.post<MadeClinic>('/api/tenants', clinic),
  edit: (api: ApiClient, clinic: number, edit: { name?: string; zone?: string; quotas?: Quotas }) => api.patch<Clinic>(`/api/tenants/${clinic}`, edit),
  act: (api: ApiClient, clinic: number, act: 'suspend' | 'resume') => api.post<Clinic>(`/api/tenants/${clinic}/${act}`),
  delete: (api: ApiClient, clinic: number, slug: string) => api.post<Clinic>(`/api/tenants/${clinic}/delete`, { slug }),
  addDomain: (api: ApiClient, clinic: number, host: string) => api.post<Clinic>(`/api/tenants/${clinic}/domains`, { host }),
  removeDomain: (api: ApiClient, clinic: number, host: string) => api.delete<Clinic>(`/api/tenants/${clinic}/domains/${id(host)}`),
  certificates: (api: ApiClient) => api.get<{ certificates: Certificate[] }>('/api/tenants/certificates'),
};

export const settings = {
  get: (api: ApiClient) => api.get<Standings>('/api/tenants/settings'),
  put: (api: ApiClient, version: number, all: Settings) => api.put<Standings>('/api/tenants/settings', { version, settings: all }),
  versions: (api: ApiClient) => api.get<{ versions: Version[] }>('/api/tenants/settings/versions'),
  rollback: (api: ApiClient, version: number) => api.post<Standings>('/api/tenants/settings/rollback', { version }),
};

export const exports = {
  list: (api: ApiClient) => api.get<{ exports: Export[] }>('/api/tenants/exports'),
  begin: (api: ApiClient, passphrase: string) => api.post<Export>('/api/tenants/own/export', passphrase === '' ? {} : { passphrase }),
  archive: (api: ApiClient, job: string) => api.blob(`/api/tenants/exports/${id(job)}/archive`),
};
