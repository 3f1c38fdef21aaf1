-- Passkeys (W3C WebAuthn Level 3): `credential` is the credential id, `public_key` its COSE_Key as the authenticator gave it.
CREATE TABLE identity_passkey (
    tenant BIGINT NOT NULL, id UUID NOT NULL, user_id UUID NOT NULL, credential BYTEA NOT NULL, public_key BYTEA NOT NULL,
    rp_id TEXT NOT NULL, sign_count BIGINT NOT NULL, backup_eligible BOOLEAN NOT NULL, backed_up BOOLEAN NOT NULL,
    aaguid UUID NOT NULL, transports TEXT NOT NULL, name TEXT NOT NULL, created_at BIGINT NOT NULL, used_at BIGINT,
    PRIMARY KEY (tenant, id), UNIQUE (tenant, credential));
CREATE INDEX identity_passkey_user ON identity_passkey (tenant, user_id);

-- What has begun and is to be finished within minutes, once: a passkey's ceremony, or the second step of a sign-in.
CREATE TABLE identity_ceremony (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, kind TEXT NOT NULL, user_id UUID, session UUID, challenge BYTEA NOT NULL,
    rp_id TEXT NOT NULL, origins TEXT NOT NULL, tries BIGINT NOT NULL, expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, hash));
CREATE INDEX identity_ceremony_expires ON identity_ceremony (tenant, expires_at);

-- One-time codes (RFC 6238). Secrets are sealed; `pending` waits for its first code; a step at or before `last_step` is spent.
CREATE TABLE identity_totp (
    tenant BIGINT NOT NULL, user_id UUID NOT NULL, secret BYTEA, pending BYTEA, last_step BIGINT NOT NULL,
    confirmed_at BIGINT, PRIMARY KEY (tenant, user_id));

-- Recovery codes: only a keyed hash of each is stored.
CREATE TABLE identity_recovery (
    tenant BIGINT NOT NULL, user_id UUID NOT NULL, hash BYTEA NOT NULL, created_at BIGINT NOT NULL, used_at BIGINT,
    PRIMARY KEY (tenant, user_id, hash));

-- A link sent by mail opens only in the browser that asked for it (the SHA-256 of a secret it keeps), and may ask for the
-- date of birth. Links an operator made have neither.
ALTER TABLE identity_link ADD COLUMN browser BYTEA;
ALTER TABLE identity_link ADD COLUMN birth_date BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE identity_link ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
