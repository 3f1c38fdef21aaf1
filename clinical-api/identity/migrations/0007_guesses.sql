-- Browsers in which somebody has signed in to an account: the SHA-256 of a secret that the browser keeps. Guesses made there
-- are counted apart, so that strangers cannot keep the owner out.
CREATE TABLE identity_browser (
    tenant BIGINT NOT NULL, user_id UUID NOT NULL, browser BYTEA NOT NULL, seen_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, user_id, browser));

-- What a password hash costs on this installation, measured once: argon2id's memory in KiB and its passes.
CREATE TABLE identity_hash_cost (
    tenant BIGINT NOT NULL, memory BIGINT NOT NULL, passes BIGINT NOT NULL, took_ms BIGINT NOT NULL, measured_at BIGINT NOT NULL,
    PRIMARY KEY (tenant));

-- A link that leads to a new password, and opens no session.
ALTER TABLE identity_link ADD COLUMN reset BOOLEAN NOT NULL DEFAULT FALSE;
