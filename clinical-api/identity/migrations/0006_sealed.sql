-- `email` is compared only: on PostgreSQL it stands blinded. What is shown stands sealed beside it; null in an older row.
ALTER TABLE identity_user ADD COLUMN email_sealed TEXT;
