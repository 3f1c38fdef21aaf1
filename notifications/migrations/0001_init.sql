-- Where a person can be reached; filled from the events of whoever keeps the accounts.
CREATE TABLE contact (
    tenant BIGINT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, email TEXT, language TEXT NOT NULL,
    PRIMARY KEY (tenant, subject));

-- What a board shows. Titles are neutral: no values, no findings.
CREATE TABLE alert (
    tenant BIGINT NOT NULL, id TEXT NOT NULL, board TEXT NOT NULL, severity TEXT NOT NULL, title TEXT NOT NULL,
    subject_ref TEXT, link TEXT, at BIGINT NOT NULL, acknowledged_by TEXT, acknowledged_name TEXT,
    acknowledged_at BIGINT, PRIMARY KEY (tenant, id));
CREATE INDEX alert_board ON alert (tenant, board, at);

-- What one person is told in the application; source ("alert:{id}") makes sure that it is told once.
CREATE TABLE notification (
    tenant BIGINT NOT NULL, id UUID NOT NULL, subject TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, link TEXT,
    source TEXT NOT NULL, at BIGINT NOT NULL, read_at BIGINT, PRIMARY KEY (tenant, id), UNIQUE (tenant, subject, source));
CREATE INDEX notification_subject ON notification (tenant, subject, at);

-- The way out of the application: one row for each message on a channel, and a log of every attempt.
CREATE TABLE delivery (
    tenant BIGINT NOT NULL, id UUID NOT NULL, notification UUID NOT NULL, channel TEXT NOT NULL, address TEXT NOT NULL,
    name TEXT NOT NULL, language TEXT NOT NULL, state TEXT NOT NULL, attempts BIGINT NOT NULL, created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX delivery_notification ON delivery (tenant, notification);
CREATE TABLE delivery_attempt (
    tenant BIGINT NOT NULL, delivery UUID NOT NULL, number BIGINT NOT NULL, at BIGINT NOT NULL, outcome TEXT NOT NULL,
    detail TEXT NOT NULL, PRIMARY KEY (tenant, delivery, number));

-- Mails kept here instead of sent, where no mail server is configured.
CREATE TABLE local_mail (
    tenant BIGINT NOT NULL, id UUID NOT NULL, at BIGINT NOT NULL, sender TEXT NOT NULL, recipient TEXT NOT NULL,
    subject TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, id));
