-- What happened in each run, entry by entry.

-- Entries that follow each other in the journal of one run.
CREATE TABLE px_journal (
    chunk        INTEGER PRIMARY KEY, -- in the order in which they were stored
    run          INTEGER NOT NULL, -- a random number
    connector_id TEXT NOT NULL,
    account_id   TEXT NOT NULL,
    sync_id      TEXT NOT NULL,
    first_seq    INTEGER NOT NULL,
    last_seq     INTEGER NOT NULL,
    written_at   INTEGER NOT NULL,
    entries      TEXT NOT NULL, -- a JSON object in each line
    checksum     INTEGER NOT NULL -- over the entries
);
CREATE INDEX px_journal_sync ON px_journal (sync_id, run, first_seq);
-- The bytes of all entries: what their bound is kept by.
INSERT INTO px_meta VALUES ('journal_bytes', 0);

-- One row per entry. A sync that was run again under its id has several runs; the last counts.
CREATE VIEW parallax_journal AS
SELECT
    j.connector_id,
    j.account_id,
    j.sync_id,
    j.run,
    e.value ->> 'seq' AS seq,
    e.value ->> 'at' AS at,
    e.value ->> 'kind' AS kind,
    e.value ->> 'step_id' AS step_id,
    e.value AS entry
FROM px_journal j, json_each('[' || replace(j.entries, char(10), ',') || ']') e;
