-- How a subject is called to the others of the thing it is related to (a colleague in a visit); NULL: the thing's owner knows.
ALTER TABLE relation ADD COLUMN label TEXT;

-- Emergency access is reviewed by somebody, until some time; that the time has passed is told once.
ALTER TABLE break_glass ADD COLUMN due_at BIGINT;
ALTER TABLE break_glass ADD COLUMN assignee TEXT;
ALTER TABLE break_glass ADD COLUMN overdue_told_at BIGINT;
CREATE INDEX break_glass_due ON break_glass (tenant, due_at);

-- Work over older data that goes on where it stopped: how far it is, and when it was done.
CREATE TABLE backfill (
    tenant BIGINT NOT NULL, name TEXT NOT NULL, place TEXT NOT NULL, done_at BIGINT, PRIMARY KEY (tenant, name));
