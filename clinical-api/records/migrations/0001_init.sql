-- Visits as the record knows them, and the Encounter each became.
CREATE TABLE records_visit (
    tenant BIGINT NOT NULL, visit UUID NOT NULL, encounter TEXT, patient TEXT, context TEXT, host TEXT NOT NULL,
    guest TEXT NOT NULL, started_at BIGINT, ended_at BIGINT, PRIMARY KEY (tenant, visit));
CREATE INDEX records_visit_patient ON records_visit (tenant, patient, started_at);

-- Readings taken in: one for each device, code and time of the device.
CREATE TABLE records_reading (
    tenant BIGINT NOT NULL, device TEXT NOT NULL, code TEXT NOT NULL, at BIGINT NOT NULL,
    PRIMARY KEY (tenant, device, code, at));

-- What was last announced of a result, so that a repeated state is not announced again.
CREATE TABLE records_result (
    tenant BIGINT NOT NULL, resource TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (tenant, resource));
