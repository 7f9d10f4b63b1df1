-- What was stored of a version that is history: the checksum that its row had; NULL for rows of before.
ALTER TABLE px_change ADD COLUMN checksum INTEGER;
