-- The keys of each tenant, wrapped by the root key. They stand in the system tenant's own store, so that they can be read
-- before a tenant's store is. purpose: 'kek' wraps data keys, 'index' blinds what is searched, 'page' seals its file.
-- A destroyed key has no bytes.
CREATE TABLE vault_key (
    tenant BIGINT NOT NULL, owner BIGINT NOT NULL, purpose TEXT NOT NULL, version BIGINT NOT NULL, wrapped BYTEA,
    made_at BIGINT NOT NULL, changed_at BIGINT NOT NULL, PRIMARY KEY (tenant, owner, purpose, version));

-- Tells the right root key from a wrong one.
CREATE TABLE vault_root (tenant BIGINT NOT NULL, verifier BYTEA NOT NULL, PRIMARY KEY (tenant));

-- What was erased: the same lines stand in a file outside of every backup.
CREATE TABLE erasure (
    tenant BIGINT NOT NULL, owner BIGINT NOT NULL, class TEXT NOT NULL, subject TEXT NOT NULL, at BIGINT NOT NULL,
    PRIMARY KEY (tenant, owner, class, subject));

-- Data keys, in each tenant's own store, wrapped by a version of its key. A destroyed one stays as a tombstone.
CREATE TABLE data_key (
    tenant BIGINT NOT NULL, id BIGINT NOT NULL, class TEXT NOT NULL, subject TEXT NOT NULL, version BIGINT NOT NULL,
    wrapped BYTEA, made_at BIGINT NOT NULL, gone_at BIGINT, PRIMARY KEY (tenant, id), UNIQUE (tenant, class, subject));
CREATE INDEX data_key_version ON data_key (tenant, version) WHERE wrapped IS NOT NULL;
