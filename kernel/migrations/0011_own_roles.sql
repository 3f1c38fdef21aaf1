-- Roles of a clinic's own: each a choice of the permissions that the fixed roles have. Versions are added and never changed;
-- the newest one holds, unless it says that the role is gone.
CREATE TABLE own_role (
    tenant BIGINT NOT NULL, id UUID NOT NULL, version BIGINT NOT NULL, name TEXT NOT NULL, permissions TEXT NOT NULL,
    at BIGINT NOT NULL, actor TEXT NOT NULL, gone BOOLEAN NOT NULL, PRIMARY KEY (tenant, id, version));
