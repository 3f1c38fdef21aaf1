-- Changes of an e-mail address that were asked for. The new one is proved by a link that goes there, in the browser that asked;
-- whoever holds the old one can take it back for some days. Addresses stand sealed.
CREATE TABLE identity_address (
    tenant BIGINT NOT NULL, id UUID NOT NULL, user_id UUID NOT NULL, email TEXT NOT NULL, old_email TEXT NOT NULL,
    browser BYTEA NOT NULL, asked_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, confirmed_at BIGINT, ended_at BIGINT,
    undo_until BIGINT NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX identity_address_user ON identity_address (tenant, user_id, asked_at);

-- Links of it: only the SHA-256 of each secret. `undo` takes the change back, the other kind makes it.
CREATE TABLE identity_address_link (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, address_id UUID NOT NULL, undo BOOLEAN NOT NULL,
    used_at BIGINT, PRIMARY KEY (tenant, hash));
