-- The data key a file's bytes are sealed with. Absent: written before files were sealed.
ALTER TABLE shared_file ADD COLUMN data_key BIGINT;
