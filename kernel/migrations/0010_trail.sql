-- From where an act came: the session, the network it was asked from (cut), and how the session's token was taken. `digest`: SHA-256
-- of what was written, 32 bytes each, in the order of the detail. `concerned`: SHA-256 over the list in audit_about.
ALTER TABLE audit ADD COLUMN session UUID;
ALTER TABLE audit ADD COLUMN network TEXT;
ALTER TABLE audit ADD COLUMN issued TEXT;
ALTER TABLE audit ADD COLUMN digest BYTEA;
ALTER TABLE audit ADD COLUMN concerned BYTEA;

-- Whose records an entry is about, where there are several: what a page of a search showed, a list of names.
CREATE TABLE audit_about (
    tenant BIGINT NOT NULL, seq BIGINT NOT NULL, patient TEXT NOT NULL, PRIMARY KEY (tenant, seq, patient));
CREATE INDEX audit_about_of ON audit_about (tenant, patient, seq);

-- Sessions whose token was taken at the machine, and what applications were given in them. Outlives them: a grant may.
CREATE TABLE session_machine (tenant BIGINT NOT NULL, session UUID NOT NULL, PRIMARY KEY (tenant, session));
