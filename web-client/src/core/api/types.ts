// The shapes of the hub's HTTP answers, as the client uses them. Times are RFC 3339 strings in UTC.

export interface Person { subject: string; name: string }

export type DeviceState = 'ok' | 'denied' | 'missing' | 'skipped';
export interface DeviceCheck { camera: DeviceState; microphone: DeviceState; speaker: DeviceState }

export type VisitState = 'scheduled' | 'device_check' | 'waiting' | 'admitted' | 'in_consult' | 'ended';

export interface Visit {
  id: string;
  /** Of two views of a visit the one with the greater revision is the newer. */
  rev?: number;
  title: string;
  state: VisitState;
  start: string;
  host: Person;
  guest: Person & { device_check?: DeviceCheck | null; consented_at?: string | null; online?: boolean };
  arrived_at?: string | null;
  admitted_at?: string | null;
  ended_at?: string | null;
  /** Called off before the patient was let in; it has ended then. */
  cancelled_at?: string | null;
  position?: number | null;
  /** Absent until the visit has a conversation. */
  conversation_id?: string | null;
  subject_ref?: string | null;
  participants?: Array<Person & { intervals: Array<{ from: string; to?: string | null }> }>;
  /** Others of the clinic who have joined. */
  colleagues?: Person[];
  /** What whoever asked may do; only in answers to people of the clinic, never in live events. */
  may?: Array<'lead' | 'talk' | 'join'>;
}

export interface OpenedVisit { access_token: string; visit: Visit; me: Person }
export interface MediaGrant { url: string; token: string; room: string; identity: string }

export type Role = 'admin' | 'clinician' | 'staff' | 'patient' | 'guest' | 'device';
export interface User { id: string; name: string; roles: Role[]; practitioner_id?: string | null; patient_id?: string | null }
export type Assurance = 'bearer' | 'one' | 'two';
export interface SignedIn { access_token: string; expires_at: string; user: User; assurance?: Assurance }
export type Method = 'passkey' | 'totp' | 'recovery' | 'password';
export interface Ticket { ticket: string; methods: Method[] }
/** A password was right: a session, or what is asked for next. */
export type SignInAnswer = SignedIn | { second_factor: Ticket };
export interface Me {
  user: User;
  tenant: { slug: string; name: string; zone: string };
  session?: { assurance: Assurance; idle_minutes?: number };
}

/** The same session, under a new token: the old one opens nothing any more. */
export interface Proved { access_token: string; assurance: string }
export interface Security {
  password: boolean;
  passkeys: number;
  totp: boolean;
  recovery: number;
  assurance: Assurance;
  required: boolean;
  step_up: Method[];
}
export interface PasskeyInfo { id: string; name: string; created_at: string; last_used_at: string | null; synced: boolean }
export interface SessionInfo { id: string; note: string; created_at: string; last_seen_at: string; expires_at: string; current: boolean; assurance: Assurance; client?: string }

export interface Appointment {
  id: string;
  start: string;
  end: string;
  status: string;
  reason?: string | null;
  patient: Patient;
  visit_id?: string | null;
  visit_link?: string | null;
}
export interface Patient { id: string; name: string; birth_date?: string | null; sex?: string | null }

/** What the scanner of files said; absent where files are not scanned. */
export type FileState = 'waiting' | 'clean' | 'harmful';
export interface FileRef { id: string; name: string; type: string; size: number; sha256?: string; state?: FileState }
export interface MessageBody { text?: string; file?: FileRef }
export interface Message {
  seq: number;
  id: string;
  client_id: string;
  conversation_id: string;
  sender: Person;
  at: string;
  body: MessageBody;
}
export interface Member extends Person { delivered_upto: number; read_upto: number }
export interface Conversation { id: string; title?: string; members: Member[]; last_seq: number }

export interface Vital { code: string; name: string; value: number | string | null; unit?: string | null; at: string }
export interface ResultObservation { name: string; value: string | number; unit?: string | null; range?: string | null; flag?: string | null }
export interface ResultReport {
  id: string;
  name: string;
  at: string;
  status?: string;
  critical?: boolean;
  observations?: ResultObservation[];
  /** Observations it is made of: cards of their own give way to it. */
  parts?: string[];
}
export type Coded = string | { name?: string; text?: string; display?: string; detail?: string | null; status?: string | null; severity?: string | null };
export interface Chart {
  patient: Patient;
  allergies: Coded[];
  conditions: Coded[];
  medications: Coded[];
  vitals: Vital[];
  results: ResultReport[];
}

export interface Notice {
  id: string;
  kind: string;
  /** Neutral: says that something is there, not what was found. */
  title: string;
  link?: string | null;
  at: string;
  read_at?: string | null;
}

export type Severity = 'info' | 'warning' | 'critical';
export interface Alert {
  id: string;
  board: string;
  severity: Severity;
  title: string;
  subject_ref?: string | null;
  link?: string | null;
  at: string;
  acknowledged_by?: string | Person | null;
  acknowledged_at?: string | null;
}

export interface AuditEntry {
  seq: number;
  at: string;
  actor: string;
  action: string;
  target: string;
  outcome: string;
  detail: string;
  patient?: string;
  /** It is about so many patients, where there are several. */
  patients?: number;
  session?: string;
  network?: string;
  /** `machine`: by a token that was taken at the machine in the name of the actor. */
  issued?: string;
}
export interface AuditPage { entries: AuditEntry[]; next: number | null }
export interface AuditPerson { name: string; roles: Role[] }
export interface AuditFinding { kind: string; seq?: number; until?: number; text: string }
export interface AuditVerdict {
  intact: boolean;
  entries: number;
  findings: AuditFinding[];
  checkpoints: number;
  /** The last entry a signed checkpoint vouches for. */
  vouched: number;
  vouched_at: string | null;
  file_begins_late: boolean;
}

/** One scope of a request; `level`, `type` and `letters` for clinical ones. */
/** `only`: the conditions of a scope that a query narrows. */
export interface ScopeWord { scope: string; fixed: boolean; level?: 'patient' | 'user'; type?: string; letters?: string; only?: ReadonlyArray<{ name: string; value: string }> }
export interface AuthorizationRequest {
  client: { id: string; name: string; since: string };
  redirect_host: string;
  scopes: ScopeWord[];
  patient: { needed: boolean; fixed?: string; among?: string[] };
  expires_in: number;
  /** Seconds until the person is asked again. */
  lasts: number;
}
/** In the names of RFC 7591. */
export interface OAuthMetadata {
  client_name: string;
  token_endpoint_auth_method: 'none' | 'client_secret_basic' | 'private_key_jwt';
  grant_types: string[];
  scope: string;
  redirect_uris?: string[];
  post_logout_redirect_uris?: string[];
  initiate_login_uri?: string;
  backchannel_logout_uri?: string;
  dpop_bound_access_tokens?: boolean;
  jwks?: object;
  jwks_uri?: string;
}
export interface OAuthClient extends OAuthMetadata { client_id: string; active: boolean; created_at: string; updated_at: string; client_secret?: string }

export interface SsoSettings { name: string; issuer: string; client_id: string; domains: string[]; create?: string; two_factors: boolean; two_factor_acr?: string[]; two_factor_amr?: string[] }
export interface SsoProvider extends SsoSettings { id: string; active: boolean; created_at: string; has_secret: boolean; redirect_uri: string; backchannel_logout_uri: string }
export interface SsoChange { active: boolean; client_secret?: string; settings: SsoSettings }

/** One breaking of the glass. */
export interface EmergencyAccess {
  id: string; subject: string; name: string; patient_id: string; reason_code: string; text: string; at: string; until: string;
  /** Until when it is to be reviewed, and by whom (a subject). */
  due: string; assignee?: string; reviewed_at?: string; review?: string;
}
/** What a role may do, as the policy's tables have it. */
export interface RoleRules {
  role: Role;
  records: { class: string; letters: string; breadth: string }[];
  things: { kind: string; action: string; how: string; relations: string[] }[];
  writes: { kind: string; elements: string[]; extensions: string[] }[];
}
export interface AccessRules { roles: RoleRules[]; classes: { class: string; types: string[] }[]; hidden: string[]; labels: { related: string[]; named: string[] } }
export type GlassShow = 'waiting' | 'overdue' | 'mine' | 'all';
export type AccessReach = 'everyone' | 'some' | 'none';
/** Why a decision of the policy is as it is, and what a user sees by type. */
export interface AccessAnswer {
  decision?: { allow: boolean; why: string; steps: { step: string; pass: boolean; because: string }[] };
  sees: { kind: string; read: AccessReach; write: AccessReach; patients?: number }[];
}
