-- How a session came about and what it is limited to; when it was last seen, and after what silence it ends.
ALTER TABLE session ADD COLUMN assurance TEXT NOT NULL DEFAULT 'one';
ALTER TABLE session ADD COLUMN proved_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN client TEXT;
ALTER TABLE session ADD COLUMN scopes TEXT;
ALTER TABLE session ADD COLUMN patient TEXT;
ALTER TABLE session ADD COLUMN idle_ms BIGINT;
ALTER TABLE session ADD COLUMN seen_at BIGINT NOT NULL DEFAULT 0;

-- Whether a tenant is served, and what it has chosen (a JSON object; what it does not name stands at its default).
ALTER TABLE tenant ADD COLUMN status TEXT NOT NULL DEFAULT 'active';
ALTER TABLE tenant ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
