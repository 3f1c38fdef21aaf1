-- Tenants are registered in the system tenant's own file (tenant 0).
CREATE TABLE tenant (
    tenant BIGINT NOT NULL, id BIGINT NOT NULL, slug TEXT NOT NULL, name TEXT NOT NULL, zone TEXT NOT NULL,
    created_at BIGINT NOT NULL, PRIMARY KEY (tenant, id), UNIQUE (tenant, slug));
CREATE TABLE tenant_domain (
    tenant BIGINT NOT NULL, host TEXT NOT NULL, owner BIGINT NOT NULL, PRIMARY KEY (tenant, host));

-- Access tokens: only their SHA-256 is stored.
CREATE TABLE session (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, id UUID NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL,
    roles TEXT NOT NULL, note TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, hash));
CREATE INDEX session_subject ON session (tenant, subject);

-- Relations between subjects and objects: what the policy looks up.
CREATE TABLE relation (
    tenant BIGINT NOT NULL, subject TEXT NOT NULL, relation TEXT NOT NULL, object TEXT NOT NULL, until_at BIGINT,
    PRIMARY KEY (tenant, subject, relation, object));
CREATE INDEX relation_object ON relation (tenant, object, relation);

-- Durable events: one row for each consuming group.
CREATE TABLE outbox (
    tenant BIGINT NOT NULL, grp TEXT NOT NULL, seq BIGINT NOT NULL, id UUID NOT NULL, kind TEXT NOT NULL,
    ekey TEXT NOT NULL, actor TEXT, at BIGINT NOT NULL, body TEXT NOT NULL, due_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL, PRIMARY KEY (tenant, grp, seq));
CREATE TABLE outbox_seq (tenant BIGINT NOT NULL, last BIGINT NOT NULL, PRIMARY KEY (tenant));
CREATE TABLE dead_letter (
    tenant BIGINT NOT NULL, grp TEXT NOT NULL, id UUID NOT NULL, kind TEXT NOT NULL, ekey TEXT NOT NULL, actor TEXT,
    at BIGINT NOT NULL, body TEXT NOT NULL, error TEXT NOT NULL, parked_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, grp, id));
CREATE TABLE consumed (
    tenant BIGINT NOT NULL, grp TEXT NOT NULL, id UUID NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (tenant, grp, id));

-- Answers to commands that carried an idempotency key.
CREATE TABLE idempotency (
    tenant BIGINT NOT NULL, subject TEXT NOT NULL, route TEXT NOT NULL, ikey TEXT NOT NULL, request BYTEA NOT NULL,
    answer TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (tenant, subject, route, ikey));

-- The audit trail: a hash chain for each tenant.
CREATE TABLE audit (
    tenant BIGINT NOT NULL, seq BIGINT NOT NULL, at BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL, hash BYTEA NOT NULL,
    PRIMARY KEY (tenant, seq));
