-- What the scanner said of a finished file: waiting, clean or harmful. No row: finished while none was configured.
CREATE TABLE file_verdict (
    tenant BIGINT NOT NULL, file UUID NOT NULL, verdict TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (tenant, file));
CREATE INDEX file_verdict_waiting ON file_verdict (tenant, at) WHERE verdict = 'waiting';
