-- Whose record an entry is about, where it is about one: what "who saw my record" is answered from.
ALTER TABLE audit ADD COLUMN patient TEXT;
CREATE INDEX audit_patient ON audit (tenant, patient, seq) WHERE patient IS NOT NULL;
CREATE INDEX audit_actor ON audit (tenant, actor, seq);

-- Signed statements that the chain had this entry at its end; each stands in a file outside of the database, too.
CREATE TABLE audit_checkpoint (
    tenant BIGINT NOT NULL, seq BIGINT NOT NULL, at BIGINT NOT NULL, hash BYTEA NOT NULL, signature BYTEA NOT NULL,
    PRIMARY KEY (tenant, seq));
