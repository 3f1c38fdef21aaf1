-- Sign-in through outside OpenID providers. `body` says which and for whom; our secret with them is sealed.
CREATE TABLE sso_provider (
    tenant BIGINT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, sealed BYTEA, active BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL, PRIMARY KEY (tenant, id));

-- Sign-ins under way, by the hash of their state; `browser` is the hash of a secret that stays in the browser that began.
CREATE TABLE sso_state (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, provider TEXT NOT NULL, browser BYTEA NOT NULL, nonce TEXT NOT NULL,
    verifier TEXT NOT NULL, expires_at BIGINT NOT NULL, PRIMARY KEY (tenant, hash));
CREATE INDEX sso_state_expires ON sso_state (tenant, expires_at);

-- Who somebody is at a provider.
CREATE TABLE sso_identity (
    tenant BIGINT NOT NULL, provider TEXT NOT NULL, sub TEXT NOT NULL, user_id UUID NOT NULL, created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, provider, sub));
