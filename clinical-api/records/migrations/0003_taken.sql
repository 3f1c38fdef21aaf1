-- Readings taken in: one for each device, code, time of the device, and value (a blind of value and unit). A device whose clock begins
-- anew says the same time again of another reading. What was taken in before has no value and stays where it is.
CREATE TABLE records_taken (
    tenant BIGINT NOT NULL, device TEXT NOT NULL, code TEXT NOT NULL, at BIGINT NOT NULL, digest BYTEA NOT NULL,
    received BIGINT NOT NULL, PRIMARY KEY (tenant, device, code, at, digest));
