-- Exports of the whole clinic. The archive lies in a file; what opens it is kept nowhere.
CREATE TABLE tenants_export (
    tenant BIGINT NOT NULL, id UUID NOT NULL, asked_by TEXT NOT NULL, asked_at BIGINT NOT NULL, sealed BOOLEAN NOT NULL,
    state TEXT NOT NULL, step TEXT NOT NULL, steps_done BIGINT NOT NULL, steps BIGINT NOT NULL, bytes BIGINT NOT NULL,
    sha256 TEXT, ended_at BIGINT, PRIMARY KEY (tenant, id));
