-- Who treats whom, by the resource that says so (`Appointment/ID`, `Encounter/ID`, ..): from when until when.
CREATE TABLE treatment (
    tenant BIGINT NOT NULL, source TEXT NOT NULL, who TEXT NOT NULL, patient TEXT NOT NULL, from_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL, PRIMARY KEY (tenant, source, who, patient));
CREATE INDEX treatment_who ON treatment (tenant, who, patient);
CREATE INDEX treatment_patient ON treatment (tenant, patient);

-- Patients' consents as rules, one row a FHIR Consent that denies anything or names anyone.
CREATE TABLE consent_rule (
    tenant BIGINT NOT NULL, consent TEXT NOT NULL, patient TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (tenant, consent));
CREATE INDEX consent_rule_patient ON consent_rule (tenant, patient);

-- Emergency access: who, to whom, why, for how long, and what the reviewer said.
CREATE TABLE break_glass (
    tenant BIGINT NOT NULL, id UUID NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, patient TEXT NOT NULL,
    reason TEXT NOT NULL, note TEXT NOT NULL, at BIGINT NOT NULL, until_at BIGINT NOT NULL, ended_at BIGINT,
    reviewed_at BIGINT, reviewed_by TEXT, review TEXT, PRIMARY KEY (tenant, id));
CREATE INDEX break_glass_subject ON break_glass (tenant, subject, at);

-- Grows with every withdrawal of access: whoever holds something open looks again when it has grown.
CREATE TABLE access_epoch (tenant BIGINT NOT NULL, epoch BIGINT NOT NULL, PRIMARY KEY (tenant));
