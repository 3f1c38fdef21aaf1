-- Certificates that an ACME authority issues (RFC 8555), in the system tenant's own store: every server on it serves them.
-- The account with its key, sealed.
CREATE TABLE acme_account (
    tenant BIGINT NOT NULL, directory TEXT NOT NULL, credentials TEXT NOT NULL, made_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, directory));

-- One name, one certificate with its key (sealed; null until the first). next_at: when it is asked for; claimed_until: a
-- server asks just now; failures in a row, and why the last one was.
CREATE TABLE acme_host (
    tenant BIGINT NOT NULL, host TEXT NOT NULL, pair TEXT, issued_at BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL, claimed_until BIGINT NOT NULL DEFAULT 0, failures BIGINT NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '', PRIMARY KEY (tenant, host));

-- What answers the authority while it looks whether a name leads here: kind 'tls-alpn-01' by host, 'http-01' by token.
CREATE TABLE acme_answer (
    tenant BIGINT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, answer TEXT NOT NULL, ends_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind, name));
