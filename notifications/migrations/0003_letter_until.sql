-- The last time at which the way that a letter points to is open, where the letter says so.
ALTER TABLE delivery ADD COLUMN until_at BIGINT;
