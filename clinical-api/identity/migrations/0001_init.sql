-- People who sign in. `password` is a PHC string (argon2id), or null for those who come by link only.
CREATE TABLE identity_user (
    tenant BIGINT NOT NULL, id UUID NOT NULL, email TEXT NOT NULL, name TEXT NOT NULL, roles TEXT NOT NULL,
    password TEXT, active BOOLEAN NOT NULL, practitioner TEXT, patient TEXT, created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id), UNIQUE (tenant, email));

-- Sign-in links: only the SHA-256 of the secret is stored.
CREATE TABLE identity_link (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, user_id UUID NOT NULL, created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL, uses_left BIGINT NOT NULL, PRIMARY KEY (tenant, hash));

-- Failed sign-ins of an account, known or not, by the hash of its address.
CREATE TABLE identity_attempt (
    tenant BIGINT NOT NULL, account BYTEA NOT NULL, failures BIGINT NOT NULL, until_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, account));
CREATE INDEX identity_attempt_until ON identity_attempt (tenant, until_at);
