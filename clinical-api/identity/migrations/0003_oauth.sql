-- The OAuth 2.1 / OpenID Connect / SMART App Launch authorization server.

-- Applications. `body` is their metadata in the names of RFC 7591; of a secret only the SHA-256 is stored.
CREATE TABLE oauth_client (
    tenant BIGINT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, secret BYTEA, active BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, PRIMARY KEY (tenant, id));

-- Web origins of the redirect addresses: who may call from a browser (CORS).
CREATE TABLE oauth_origin (
    tenant BIGINT NOT NULL, origin TEXT NOT NULL, client TEXT NOT NULL, PRIMARY KEY (tenant, origin, client));

-- Authorization requests under way: pushed by the client (RFC 9126), or shown to the user. Keyed by the hash of their handle.
CREATE TABLE oauth_request (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, client TEXT NOT NULL, pushed BOOLEAN NOT NULL, body TEXT NOT NULL,
    expires_at BIGINT NOT NULL, PRIMARY KEY (tenant, hash));
CREATE INDEX oauth_request_expires ON oauth_request (tenant, expires_at);

-- EHR launches: what an application will be told when it is opened from within.
CREATE TABLE oauth_launch (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, client TEXT NOT NULL, subject TEXT NOT NULL, patient TEXT NOT NULL,
    encounter TEXT, expires_at BIGINT NOT NULL, PRIMARY KEY (tenant, hash));
CREATE INDEX oauth_launch_expires ON oauth_launch (tenant, expires_at);

-- What a user allowed a client: the family of every token that comes of it.
CREATE TABLE oauth_grant (
    tenant BIGINT NOT NULL, id UUID NOT NULL, client TEXT NOT NULL, subject TEXT NOT NULL, scopes TEXT NOT NULL,
    patient TEXT, encounter TEXT, launched BOOLEAN NOT NULL, session UUID, assurance TEXT NOT NULL, auth_time BIGINT NOT NULL,
    created_at BIGINT NOT NULL, used_at BIGINT NOT NULL, ends_at BIGINT NOT NULL, ended_at BIGINT,
    PRIMARY KEY (tenant, id));
CREATE INDEX oauth_grant_subject ON oauth_grant (tenant, subject);
CREATE INDEX oauth_grant_client ON oauth_grant (tenant, client);

CREATE TABLE oauth_code (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, grant_id UUID NOT NULL, client TEXT NOT NULL, redirect_uri TEXT NOT NULL,
    challenge TEXT NOT NULL, nonce TEXT, expires_at BIGINT NOT NULL, used_at BIGINT, PRIMARY KEY (tenant, hash));
CREATE INDEX oauth_code_expires ON oauth_code (tenant, expires_at);

CREATE TABLE oauth_refresh (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, grant_id UUID NOT NULL, expires_at BIGINT NOT NULL, used_at BIGINT,
    PRIMARY KEY (tenant, hash));
CREATE INDEX oauth_refresh_grant ON oauth_refresh (tenant, grant_id);
CREATE INDEX oauth_refresh_expires ON oauth_refresh (tenant, expires_at);

-- Which sessions (access tokens) belong to which grant.
CREATE TABLE oauth_access (
    tenant BIGINT NOT NULL, session UUID NOT NULL, grant_id UUID NOT NULL, expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, session));
CREATE INDEX oauth_access_grant ON oauth_access (tenant, grant_id);
CREATE INDEX oauth_access_expires ON oauth_access (tenant, expires_at);

-- Identifiers of client assertions that were used: each is good once, on whichever server.
CREATE TABLE oauth_jti (
    tenant BIGINT NOT NULL, client TEXT NOT NULL, jti BYTEA NOT NULL, expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, client, jti));
CREATE INDEX oauth_jti_expires ON oauth_jti (tenant, expires_at);

-- Signing keys. The private part is sealed; `jwk` is what is published.
CREATE TABLE oauth_key (
    tenant BIGINT NOT NULL, kid TEXT NOT NULL, sealed BYTEA NOT NULL, jwk TEXT NOT NULL, active_from BIGINT NOT NULL,
    PRIMARY KEY (tenant, kid));
