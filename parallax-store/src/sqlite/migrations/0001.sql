-- Tables are private; the views at the end are the interface.
-- Times are microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE px_meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- A secret, so that no source can prepare two contents with one hash.
INSERT INTO px_meta VALUES ('hash_seed', randomblob(8));
INSERT INTO px_meta VALUES ('store_id', randomblob(16));

CREATE TABLE px_source (
    source_id          INTEGER PRIMARY KEY,
    connector_id       TEXT NOT NULL,
    account_id         TEXT NOT NULL,
    -- Counts the commits that changed the source's data.
    generation         INTEGER NOT NULL DEFAULT 0,
    -- Which process ran the last committed run, and that run's place among its runs.
    last_process       BLOB,
    last_run_no        INTEGER,
    last_sync          INTEGER,
    last_success_sync  INTEGER, -- committed or partial
    last_complete_sync INTEGER, -- committed
    entities           INTEGER NOT NULL DEFAULT 0,
    relationships      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (connector_id, account_id)
);

CREATE TABLE px_sync (
    sync               INTEGER PRIMARY KEY,
    source_id          INTEGER NOT NULL,
    sync_id            TEXT NOT NULL,
    connector_version  TEXT NOT NULL,
    outcome            TEXT NOT NULL,
    fingerprint        BLOB NOT NULL,
    started_at         INTEGER NOT NULL,
    duration           INTEGER NOT NULL,
    committed_at       INTEGER NOT NULL,
    undelivered_events INTEGER NOT NULL,
    entities_created         INTEGER NOT NULL,
    entities_updated         INTEGER NOT NULL,
    entities_unchanged       INTEGER NOT NULL,
    entities_deleted         INTEGER NOT NULL,
    entities_kept            INTEGER NOT NULL,
    entities_held            INTEGER NOT NULL,
    entities_rejected        INTEGER NOT NULL,
    entities_duplicates      INTEGER NOT NULL,
    relationships_created    INTEGER NOT NULL,
    relationships_updated    INTEGER NOT NULL,
    relationships_unchanged  INTEGER NOT NULL,
    relationships_deleted    INTEGER NOT NULL,
    relationships_kept       INTEGER NOT NULL,
    relationships_held       INTEGER NOT NULL,
    relationships_rejected   INTEGER NOT NULL,
    relationships_duplicates INTEGER NOT NULL,
    UNIQUE (source_id, sync_id)
);

CREATE TABLE px_sync_step (
    sync          INTEGER NOT NULL,
    place         INTEGER NOT NULL,
    step_id       TEXT NOT NULL,
    status        TEXT NOT NULL,
    entities      INTEGER NOT NULL,
    relationships INTEGER NOT NULL,
    duration      INTEGER NOT NULL,
    reason        TEXT,
    PRIMARY KEY (sync, place)
) WITHOUT ROWID;

CREATE TABLE px_sync_type (
    sync      INTEGER NOT NULL,
    kind      INTEGER NOT NULL, -- 0 entity, 1 relationship
    name      TEXT NOT NULL,
    created   INTEGER NOT NULL,
    updated   INTEGER NOT NULL,
    unchanged INTEGER NOT NULL,
    deleted   INTEGER NOT NULL,
    kept      INTEGER NOT NULL,
    held      INTEGER NOT NULL,
    PRIMARY KEY (sync, kind, name)
) WITHOUT ROWID;

-- Types, classes and verbs.
CREATE TABLE px_name (
    name_id INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE
);

-- Sets of claims: a JSON array of [step, scope], sorted.
CREATE TABLE px_claims (
    claims_id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL,
    claims    TEXT NOT NULL,
    UNIQUE (source_id, claims)
);

CREATE TABLE px_entity (
    n            INTEGER PRIMARY KEY,
    source_id    INTEGER NOT NULL,
    id           BLOB NOT NULL,
    hash         BLOB NOT NULL,
    claims       INTEGER NOT NULL,
    held         INTEGER, -- the changeset that holds its delete
    type         INTEGER NOT NULL,
    class        INTEGER,
    key          TEXT NOT NULL,
    display_name TEXT,
    properties   TEXT NOT NULL,
    created_sync INTEGER NOT NULL,
    changed_sync INTEGER NOT NULL
);
-- All that a comparison reads: it never touches the table itself.
CREATE UNIQUE INDEX px_entity_compare ON px_entity (source_id, id, hash, claims, held, type);
CREATE INDEX px_entity_id ON px_entity (lower(hex(id)));
CREATE INDEX px_entity_type ON px_entity (type);

CREATE TABLE px_relationship (
    n            INTEGER PRIMARY KEY,
    source_id    INTEGER NOT NULL,
    id           BLOB NOT NULL,
    hash         BLOB NOT NULL,
    claims       INTEGER NOT NULL,
    held         INTEGER,
    from_id      BLOB NOT NULL,
    verb         INTEGER NOT NULL,
    to_id        BLOB NOT NULL,
    key          TEXT,
    properties   TEXT NOT NULL,
    created_sync INTEGER NOT NULL,
    changed_sync INTEGER NOT NULL
);
CREATE UNIQUE INDEX px_relationship_compare
    ON px_relationship (source_id, id, hash, claims, held, verb);

CREATE TABLE px_edge_from (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
CREATE TABLE px_edge_to (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;

-- Relationships with an end that is nowhere live; they are stored and not shown.
CREATE TABLE px_waiting (
    relationship INTEGER NOT NULL,
    missing      BLOB NOT NULL,
    PRIMARY KEY (relationship, missing)
) WITHOUT ROWID;
CREATE INDEX px_waiting_missing ON px_waiting (missing);

-- What a record was before a commit updated or deleted it.
CREATE TABLE px_change (
    change       INTEGER PRIMARY KEY,
    sync         INTEGER NOT NULL,
    source_id    INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    action       TEXT NOT NULL,
    id           BLOB NOT NULL,
    hash         BLOB NOT NULL,
    claims       INTEGER NOT NULL,
    name         INTEGER NOT NULL, -- its type or verb
    class        INTEGER,
    key          TEXT,
    display_name TEXT,
    from_id      BLOB,
    to_id        BLOB,
    properties   TEXT NOT NULL,
    created_sync INTEGER NOT NULL,
    changed_sync INTEGER NOT NULL
);
CREATE INDEX px_change_id ON px_change (lower(hex(id)));
CREATE INDEX px_change_sync ON px_change (sync);

CREATE VIEW parallax_source AS
SELECT
    s.connector_id,
    s.account_id,
    s.entities,
    s.relationships,
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

CREATE VIEW parallax_sync AS
SELECT
    s.connector_id,
    s.account_id,
    y.sync_id,
    y.connector_version,
    y.outcome,
    strftime('%Y-%m-%dT%H:%M:%fZ', y.started_at / 1e6, 'unixepoch') AS started_at,
    y.duration / 1000 AS duration_ms,
    strftime('%Y-%m-%dT%H:%M:%fZ', y.committed_at / 1e6, 'unixepoch') AS committed_at,
    y.entities_created,
    y.entities_updated,
    y.entities_unchanged,
    y.entities_deleted,
    y.entities_kept,
    y.entities_held,
    y.entities_rejected,
    y.entities_duplicates,
    y.relationships_created,
    y.relationships_updated,
    y.relationships_unchanged,
    y.relationships_deleted,
    y.relationships_kept,
    y.relationships_held,
    y.relationships_rejected,
    y.relationships_duplicates,
    y.undelivered_events
FROM px_sync y
JOIN px_source s ON s.source_id = y.source_id;

CREATE VIEW parallax_sync_step AS
SELECT
    s.connector_id,
    s.account_id,
    y.sync_id,
    t.place,
    t.step_id,
    t.status,
    t.entities,
    t.relationships,
    t.duration / 1000 AS duration_ms,
    t.reason
FROM px_sync_step t
JOIN px_sync y ON y.sync = t.sync
JOIN px_source s ON s.source_id = y.source_id;

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
    lower(hex(h.from_id)) AS from_id,
    lower(hex(h.to_id)) AS to_id,
    h.properties AS properties_before,
    k.claims AS claims_before
FROM px_change h
JOIN px_source s ON s.source_id = h.source_id
JOIN px_sync y ON y.sync = h.sync
JOIN px_name n ON n.name_id = h.name
LEFT JOIN px_name c ON c.name_id = h.class
LEFT JOIN px_claims k ON k.claims_id = h.claims;
