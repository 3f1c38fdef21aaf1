-- When a visit was called off before the patient was let in: its door says so.
ALTER TABLE visit ADD COLUMN cancelled_at BIGINT;
