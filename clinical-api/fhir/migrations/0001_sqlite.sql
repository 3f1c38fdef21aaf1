-- The clinical store: interned integers in clustered posting lists, compressed bodies. One file a tenant.
CREATE TABLE fhir_res (
    rid INTEGER PRIMARY KEY, tenant BIGINT NOT NULL, ty BIGINT NOT NULL, ver BIGINT NOT NULL, upd BIGINT NOT NULL,
    del BIGINT NOT NULL, ord BIGINT NOT NULL, dict BIGINT NOT NULL, body BYTEA);
-- Ids that clients chose; ours are a permutation of rid.
CREATE TABLE fhir_xid (
    tenant BIGINT NOT NULL, ty BIGINT NOT NULL, id TEXT NOT NULL, rid BIGINT NOT NULL, PRIMARY KEY (tenant, ty, id)) WITHOUT ROWID;
-- Earlier versions.
CREATE TABLE fhir_hist (
    hid INTEGER PRIMARY KEY, tenant BIGINT NOT NULL, rid BIGINT NOT NULL, ver BIGINT NOT NULL, upd BIGINT NOT NULL,
    op BIGINT NOT NULL, dict BIGINT NOT NULL, body BYTEA);
CREATE UNIQUE INDEX fhir_hist_rid ON fhir_hist (tenant, rid, ver);
CREATE TABLE fhir_code (
    id INTEGER PRIMARY KEY, tenant BIGINT NOT NULL, code TEXT NOT NULL, sys TEXT NOT NULL, UNIQUE (tenant, code, sys));
CREATE INDEX fhir_code_sys ON fhir_code (tenant, sys);
CREATE TABLE fhir_tok (
    tenant BIGINT NOT NULL, k BIGINT NOT NULL, code BIGINT NOT NULL, ord BIGINT NOT NULL, rid BIGINT NOT NULL,
    PRIMARY KEY (tenant, k, code, ord, rid)) WITHOUT ROWID;
CREATE TABLE fhir_ref (
    tenant BIGINT NOT NULL, tgt BIGINT NOT NULL, k BIGINT NOT NULL, ord BIGINT NOT NULL, rid BIGINT NOT NULL,
    PRIMARY KEY (tenant, tgt, k, ord, rid)) WITHOUT ROWID;
CREATE TABLE fhir_pc (
    tenant BIGINT NOT NULL, pt BIGINT NOT NULL, k BIGINT NOT NULL, code BIGINT NOT NULL, ord BIGINT NOT NULL, rid BIGINT NOT NULL,
    PRIMARY KEY (tenant, pt, k, code, ord, rid)) WITHOUT ROWID;
CREATE TABLE fhir_dat (
    tenant BIGINT NOT NULL, k BIGINT NOT NULL, lo BIGINT NOT NULL, hi BIGINT NOT NULL, rid BIGINT NOT NULL,
    PRIMARY KEY (tenant, k, lo, rid, hi)) WITHOUT ROWID;
CREATE TABLE fhir_str (
    tenant BIGINT NOT NULL, k BIGINT NOT NULL, norm TEXT NOT NULL, rid BIGINT NOT NULL,
    PRIMARY KEY (tenant, k, norm, rid)) WITHOUT ROWID;
CREATE TABLE fhir_qty (
    tenant BIGINT NOT NULL, k BIGINT NOT NULL, unit BIGINT NOT NULL, v DOUBLE PRECISION NOT NULL, rid BIGINT NOT NULL,
    PRIMARY KEY (tenant, k, unit, v, rid)) WITHOUT ROWID;
CREATE TABLE fhir_uri (
    tenant BIGINT NOT NULL, k BIGINT NOT NULL, uri TEXT NOT NULL, rid BIGINT NOT NULL,
    PRIMARY KEY (tenant, k, uri, rid)) WITHOUT ROWID;
-- Every change, in the order of the commits.
CREATE TABLE fhir_log (
    seq INTEGER PRIMARY KEY, tenant BIGINT NOT NULL, ty BIGINT NOT NULL, rid BIGINT NOT NULL, ver BIGINT NOT NULL,
    op BIGINT NOT NULL, at BIGINT NOT NULL);
CREATE INDEX fhir_log_ty ON fhir_log (tenant, ty, seq);
-- The next row number.
CREATE TABLE fhir_next (tenant BIGINT NOT NULL, next BIGINT NOT NULL, PRIMARY KEY (tenant));
-- Held through a transaction by conditional writes of one criterion.
CREATE TABLE fhir_guard (tenant BIGINT NOT NULL, h BIGINT NOT NULL, PRIMARY KEY (tenant, h));
