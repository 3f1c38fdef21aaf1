-- Sessions are looked up by their id, and every few seconds those whose time is near.
CREATE INDEX session_id ON session (tenant, id);
CREATE INDEX session_expires ON session (tenant, expires_at);
