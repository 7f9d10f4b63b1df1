-- Held deletes, digests, row checksums, and what each claim last saw.

-- What the connector was (its version and step ids) at the last sync with every step done.
ALTER TABLE px_source ADD COLUMN shape BLOB;
-- How many rows of px_change are the source's: what its bound is kept by.
ALTER TABLE px_source ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;
UPDATE px_source SET changes = (SELECT count(*) FROM px_change c WHERE c.source_id = px_source.source_id);

-- History is bounded for each source.
DROP INDEX px_change_sync;
CREATE INDEX px_change_source ON px_change (source_id, sync);
CREATE INDEX px_sync_source ON px_sync (source_id, sync);

-- Counts the write transactions of the store. The lock file names the last one that was
-- acknowledged, so that a store that has lost one is found out when it is opened.
INSERT INTO px_meta VALUES ('epoch', 0);
-- Which line of epochs these are: a backup begins its own.
INSERT INTO px_meta VALUES ('lineage', randomblob(16));

-- A checksum over the row as it is stored; NULL for rows of before.
ALTER TABLE px_entity ADD COLUMN checksum INTEGER;
ALTER TABLE px_relationship ADD COLUMN checksum INTEGER;
-- `held` is the changeset that holds the record's delete; negative once that was rejected, until
-- the record is emitted again.
CREATE INDEX px_entity_held ON px_entity (source_id, held) WHERE held IS NOT NULL;
CREATE INDEX px_relationship_held ON px_relationship (source_id, held) WHERE held IS NOT NULL;

-- Of a large source: for each of 4096 ranges of ids the sum of the digests of its records that are
-- not held, 16 bytes each. Equal sums, equal records: the range need not be read.
CREATE TABLE px_digest (
    source_id INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    sums      BLOB NOT NULL,
    PRIMARY KEY (source_id, kind)
);

-- Deletes that wait for somebody's word.
CREATE TABLE px_changeset (
    changeset     INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id     INTEGER NOT NULL,
    sync          INTEGER NOT NULL, -- that held them
    reason        TEXT NOT NULL,
    entities      INTEGER NOT NULL, -- as it was opened
    relationships INTEGER NOT NULL,
    state         TEXT NOT NULL, -- open, approved, rejected; released: all came back
    closed_at     INTEGER,
    closed_sync   INTEGER -- the commit that deleted, or that released the last one
);
CREATE INDEX px_changeset_source ON px_changeset (source_id, state);
-- The changeset by whose approval a record was deleted.
ALTER TABLE px_change ADD COLUMN changeset INTEGER;

-- For each claim, the last sync that looked everywhere for it, and the last that could not.
CREATE TABLE px_claim (
    source_id      INTEGER NOT NULL,
    step_id        TEXT NOT NULL,
    scope          TEXT,
    looked_sync    INTEGER,
    missed_sync    INTEGER,
    missed_because TEXT
);
CREATE UNIQUE INDEX px_claim_name ON px_claim (source_id, step_id, ifnull(scope, x''));

DROP VIEW parallax_source;
CREATE VIEW parallax_source AS
SELECT
    s.connector_id,
    s.account_id,
    s.entities,
    s.relationships,
    (SELECT count(*) FROM px_entity e WHERE e.source_id = s.source_id AND e.held > 0)
        AS entities_held,
    (SELECT count(*) FROM px_relationship r WHERE r.source_id = s.source_id AND r.held > 0)
        AS relationships_held,
    (
        SELECT count(DISTINCT w.relationship)
        FROM px_waiting w JOIN px_relationship r ON r.n = w.relationship
        WHERE r.source_id = s.source_id
    ) AS relationships_waiting,
    (SELECT count(*) FROM px_sync y WHERE y.source_id = s.source_id) AS syncs,
    l.sync_id AS last_sync_id,
    l.outcome AS last_outcome,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.committed_at / 1e6, 'unixepoch') AS last_sync_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.committed_at / 1e6, 'unixepoch') AS last_success_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', c.committed_at / 1e6, 'unixepoch') AS last_complete_at
FROM px_source s
LEFT JOIN px_sync l ON l.sync = s.last_sync
LEFT JOIN px_sync u ON u.sync = s.last_success_sync
LEFT JOIN px_sync c ON c.sync = s.last_complete_sync;

DROP VIEW parallax_entity;
CREATE VIEW parallax_entity AS
SELECT
    s.connector_id,
    s.account_id,
    lower(hex(e.id)) AS id,
    t.name AS type,
    c.name AS class,
    e.key,
    coalesce(e.display_name, e.key) AS display_name,
    e.properties,
    k.claims,
    CASE WHEN e.held > 0 THEN e.held END AS held_changeset,
    i.sync_id AS created_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', i.committed_at / 1e6, 'unixepoch') AS created_at,
    u.sync_id AS changed_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.committed_at / 1e6, 'unixepoch') AS changed_at
FROM px_entity e
JOIN px_source s ON s.source_id = e.source_id
JOIN px_name t ON t.name_id = e.type
LEFT JOIN px_name c ON c.name_id = e.class
LEFT JOIN px_claims k ON k.claims_id = e.claims
LEFT JOIN px_sync i ON i.sync = e.created_sync
LEFT JOIN px_sync u ON u.sync = e.changed_sync;

-- One row per entity: of several sources the lowest (connector_id, account_id) wins whole.
CREATE VIEW parallax_entity_merged AS
SELECT
    e.id,
    e.type,
    e.class,
    e.key,
    e.display_name,
    e.properties,
    e.connector_id,
    e.account_id,
    (SELECT count(*) FROM px_entity o WHERE lower(hex(o.id)) = e.id) AS sources
FROM parallax_entity e
WHERE NOT EXISTS (
    SELECT 1
    FROM px_entity o JOIN px_source s ON s.source_id = o.source_id
    WHERE lower(hex(o.id)) = e.id AND (s.connector_id, s.account_id) < (e.connector_id, e.account_id)
);

DROP VIEW parallax_relationship;
CREATE VIEW parallax_relationship AS
SELECT
    s.connector_id,
    s.account_id,
    lower(hex(r.id)) AS id,
    lower(hex(r.from_id)) AS from_id,
    v.name AS verb,
    lower(hex(r.to_id)) AS to_id,
    r.key,
    r.properties,
    k.claims,
    CASE WHEN r.held > 0 THEN r.held END AS held_changeset,
    i.sync_id AS created_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', i.committed_at / 1e6, 'unixepoch') AS created_at,
    u.sync_id AS changed_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.committed_at / 1e6, 'unixepoch') AS changed_at
FROM px_relationship r
JOIN px_source s ON s.source_id = r.source_id
JOIN px_name v ON v.name_id = r.verb
LEFT JOIN px_claims k ON k.claims_id = r.claims
LEFT JOIN px_sync i ON i.sync = r.created_sync
LEFT JOIN px_sync u ON u.sync = r.changed_sync
WHERE r.n NOT IN (SELECT relationship FROM px_waiting);

DROP VIEW parallax_change;
CREATE VIEW parallax_change AS
SELECT
    s.connector_id,
    s.account_id,
    y.sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', y.committed_at / 1e6, 'unixepoch') AS changed_at,
    h.action,
    CASE h.kind WHEN 0 THEN 'entity' ELSE 'relationship' END AS kind,
    lower(hex(h.id)) AS id,
    n.name AS type,
    c.name AS class,
    h.key,
    coalesce(h.display_name, h.key) AS display_name,
    CASE h.kind WHEN 1 THEN lower(hex(h.from_id)) END AS from_id,
    CASE h.kind WHEN 1 THEN lower(hex(h.to_id)) END AS to_id,
    h.properties AS properties_before,
    k.claims AS claims_before,
    h.changeset
FROM px_change h
JOIN px_source s ON s.source_id = h.source_id
JOIN px_sync y ON y.sync = h.sync
JOIN px_name n ON n.name_id = h.name
LEFT JOIN px_name c ON c.name_id = h.class
LEFT JOIN px_claims k ON k.claims_id = h.claims;

CREATE VIEW parallax_changeset AS
SELECT
    c.changeset,
    s.connector_id,
    s.account_id,
    c.state,
    c.reason,
    (SELECT count(*) FROM px_entity e WHERE e.source_id = c.source_id AND e.held = c.changeset)
        AS entities,
    (SELECT count(*) FROM px_relationship r WHERE r.source_id = c.source_id AND r.held = c.changeset)
        AS relationships,
    c.entities AS entities_at_first,
    c.relationships AS relationships_at_first,
    o.sync_id AS held_by_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', o.committed_at / 1e6, 'unixepoch') AS held_at,
    d.sync_id AS closed_by_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', c.closed_at / 1e6, 'unixepoch') AS closed_at
FROM px_changeset c
JOIN px_source s ON s.source_id = c.source_id
LEFT JOIN px_sync o ON o.sync = c.sync
LEFT JOIN px_sync d ON d.sync = c.closed_sync;
