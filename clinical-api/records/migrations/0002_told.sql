-- Who was told of a result when it was announced, separated by spaces: what its report has to add is known from that.
ALTER TABLE records_result ADD COLUMN told TEXT NOT NULL DEFAULT '';
