-- Recovery codes are stretched as passwords are, under one salt for the codes of a set. Those without a salt are of before:
-- keyed hashes, good until they are used or renewed.
ALTER TABLE identity_recovery ADD COLUMN salt BYTEA;
