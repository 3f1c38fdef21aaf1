-- What a clinic may use, which version of its settings stands, and when it will be deleted.
ALTER TABLE tenant ADD COLUMN quotas TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tenant ADD COLUMN settings_version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tenant ADD COLUMN delete_at BIGINT;

-- Counts the changes of the register: another process that sees a new number reads the register again.
CREATE TABLE tenant_register (tenant BIGINT NOT NULL, changes BIGINT NOT NULL, PRIMARY KEY (tenant));

-- Every version of every clinic's settings.
CREATE TABLE tenant_settings (
    tenant BIGINT NOT NULL, owner BIGINT NOT NULL, version BIGINT NOT NULL, settings TEXT NOT NULL, actor TEXT NOT NULL,
    at BIGINT NOT NULL, PRIMARY KEY (tenant, owner, version));

-- What a clinic has used up today of what is counted by the day, by its own calendar.
CREATE TABLE tenant_spent (
    tenant BIGINT NOT NULL, what TEXT NOT NULL, day TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (tenant, what, day));
