-- A conversation. last_seq counts its messages without gaps; topic names what it belongs to ("visit:{id}").
CREATE TABLE conversation (
    tenant BIGINT NOT NULL, id UUID NOT NULL, topic TEXT NOT NULL, title TEXT NOT NULL, mode TEXT NOT NULL,
    last_seq BIGINT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX conversation_topic ON conversation (tenant, topic);

-- Who belongs to it, and how far each has received and read. The right to read and write is the policy's relation.
CREATE TABLE conversation_member (
    tenant BIGINT NOT NULL, conversation UUID NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL,
    joined_at BIGINT NOT NULL, delivered_upto BIGINT NOT NULL, read_upto BIGINT NOT NULL,
    PRIMARY KEY (tenant, conversation, subject));

-- Messages. A sender's client_id is used once in a tenant; digest tells a repeat from another message under its id.
CREATE TABLE message (
    tenant BIGINT NOT NULL, conversation UUID NOT NULL, seq BIGINT NOT NULL, id UUID NOT NULL, client_id UUID NOT NULL,
    sender TEXT NOT NULL, sender_name TEXT NOT NULL, at BIGINT NOT NULL, body TEXT NOT NULL, digest BYTEA NOT NULL,
    file UUID, PRIMARY KEY (tenant, conversation, seq), UNIQUE (tenant, sender, client_id));
CREATE INDEX message_file ON message (tenant, file) WHERE file IS NOT NULL;

-- Files: being uploaded until sha256 is known. metadata is the client's own header, given back to it as it came.
CREATE TABLE shared_file (
    tenant BIGINT NOT NULL, id UUID NOT NULL, conversation UUID NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL,
    type TEXT NOT NULL, size BIGINT NOT NULL, sha256 BYTEA, metadata TEXT NOT NULL, created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX shared_file_owner ON shared_file (tenant, owner);
CREATE INDEX shared_file_pending ON shared_file (tenant, expires_at) WHERE sha256 IS NULL;
