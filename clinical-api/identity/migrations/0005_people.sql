-- Who was asked in, and whether they came. The link's secret is kept nowhere but in the mail.
CREATE TABLE identity_invitation (
    tenant BIGINT NOT NULL, user_id UUID NOT NULL, sent_at BIGINT NOT NULL, sent_by TEXT NOT NULL, sends BIGINT NOT NULL,
    expires_at BIGINT NOT NULL, accepted_at BIGINT, withdrawn_at BIGINT, PRIMARY KEY (tenant, user_id));

-- What people say about themselves and how they like it; null stands at the clinic's default.
CREATE TABLE identity_profile (
    tenant BIGINT NOT NULL, user_id UUID NOT NULL, language TEXT, zone TEXT, phone TEXT, pronouns TEXT,
    preferences TEXT NOT NULL, updated_at BIGINT NOT NULL, PRIMARY KEY (tenant, user_id));

-- Who may act for a patient: as far as `scope` says (words separated by spaces), until then at the latest.
CREATE TABLE identity_proxy (
    tenant BIGINT NOT NULL, id UUID NOT NULL, patient TEXT NOT NULL, user_id UUID NOT NULL, relationship TEXT NOT NULL,
    scope TEXT NOT NULL, until_at BIGINT, of_age_at BIGINT, granted_by TEXT NOT NULL, granted_at BIGINT NOT NULL,
    accepted_at BIGINT, ended_at BIGINT, ended_by TEXT, related_person TEXT, PRIMARY KEY (tenant, id));
CREATE INDEX identity_proxy_patient ON identity_proxy (tenant, patient, granted_at);
CREATE INDEX identity_proxy_user ON identity_proxy (tenant, user_id, granted_at);
