-- The key an application's tokens are bound to (RFC 9449): its thumbprint (RFC 7638).
ALTER TABLE oauth_grant ADD COLUMN jkt TEXT;

-- Applications that want to be told when the session ends in which they were allowed (OpenID Connect Back-Channel Logout),
-- and under which name the clinic is known to them. A row goes when the message is on its way.
CREATE TABLE oauth_told (
    tenant BIGINT NOT NULL, grant_id UUID NOT NULL, session UUID NOT NULL, client TEXT NOT NULL, subject TEXT NOT NULL,
    issuer TEXT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (tenant, grant_id));
CREATE INDEX oauth_told_session ON oauth_told (tenant, session);
