-- A visit and the facts its state machine decides on. `rev` grows with each change.
CREATE TABLE visit (
    tenant BIGINT NOT NULL, id UUID NOT NULL, rev BIGINT NOT NULL, state TEXT NOT NULL, title TEXT NOT NULL,
    start_at BIGINT NOT NULL, host TEXT NOT NULL, host_name TEXT NOT NULL, guest TEXT NOT NULL, guest_name TEXT NOT NULL,
    subject_ref TEXT, context_ref TEXT, conversation UUID,
    checked_at BIGINT, device_check TEXT,
    consented_at BIGINT, consent_version TEXT, consent_language TEXT,
    arrived_at BIGINT, admitted_at BIGINT, ended_at BIGINT,
    PRIMARY KEY (tenant, id));
CREATE INDEX visit_open ON visit (tenant, host, arrived_at) WHERE state <> 'ended';

-- Visit links: only the SHA-256 of the token, and the one browser it was first opened on.
CREATE TABLE visit_link (
    tenant BIGINT NOT NULL, hash BYTEA NOT NULL, visit UUID NOT NULL, expires_at BIGINT NOT NULL,
    device UUID, device_name TEXT, bound_at BIGINT,
    PRIMARY KEY (tenant, hash));

-- Who is connected now, and when each was last seen connected (written every few seconds).
CREATE TABLE visit_participant (
    tenant BIGINT NOT NULL, visit UUID NOT NULL, subject TEXT NOT NULL, connection TEXT, last_seen BIGINT,
    PRIMARY KEY (tenant, visit, subject));
CREATE INDEX visit_connected ON visit_participant (tenant, visit) WHERE connection IS NOT NULL;

-- Time spent in the consultation, in order.
CREATE TABLE visit_interval (
    tenant BIGINT NOT NULL, visit UUID NOT NULL, subject TEXT NOT NULL, n BIGINT NOT NULL,
    from_at BIGINT NOT NULL, to_at BIGINT,
    PRIMARY KEY (tenant, visit, subject, n));
