-- How far the sealing of rows has come that were written before their columns were sealed: one row a table (or store).
CREATE TABLE sealing (
    tenant BIGINT NOT NULL, sheet TEXT NOT NULL, rows BIGINT NOT NULL, at BIGINT NOT NULL, done_at BIGINT,
    PRIMARY KEY (tenant, sheet));
