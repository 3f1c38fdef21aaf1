-- Which session came of which session at an outside provider, so that the provider can end it.
CREATE TABLE sso_session (
    tenant BIGINT NOT NULL, session UUID NOT NULL, provider TEXT NOT NULL, sub TEXT NOT NULL, sid TEXT,
    created_at BIGINT NOT NULL, PRIMARY KEY (tenant, session));
CREATE INDEX sso_session_sub ON sso_session (tenant, provider, sub);
CREATE INDEX sso_session_created ON sso_session (tenant, created_at);
