-- A store of version 4: two syncs of a source, the second of which changed a thing, and deleted another
-- and a relationship; as `sqlite3 .dump` writes it.
PRAGMA application_id = 1347570776;
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE px_meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO px_meta VALUES('epoch',2);
INSERT INTO px_meta VALUES('hash_seed',X'584814036cf67e9a');
INSERT INTO px_meta VALUES('journal_bytes',1108);
INSERT INTO px_meta VALUES('lineage',X'881ddfc5ad7b0addbded2259d194cfb1');
INSERT INTO px_meta VALUES('store_id',X'8f290958fcadfb3e1728792a174541c1');
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
    relationships      INTEGER NOT NULL DEFAULT 0, shape BLOB, changes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (connector_id, account_id)
);
INSERT INTO px_source VALUES(1,'script','1',2,X'74c0fbdad07a1756eab31d6437c963a4',2,2,2,2,3,1,X'15ff8f47dc98d39d5769b06ea9a78861',3);
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
INSERT INTO px_sync VALUES(1,1,'sync-1','','committed',X'1a3f620cdd1d7b7148a4cfcf4d93ae4e',1795433054037139,203,1795433054038807,0,4,0,0,0,0,0,0,0,2,0,0,0,0,0,0,0);
INSERT INTO px_sync VALUES(2,1,'sync-2','','committed',X'7c4ecd9a0897b8743a9b1b9e739dd3b5',1795433054040509,69,1795433054041553,0,0,1,2,1,0,0,0,0,0,0,1,1,0,0,0,0);
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
INSERT INTO px_sync_step VALUES(1,0,'users','completed',4,2,70,NULL);
INSERT INTO px_sync_step VALUES(2,0,'users','completed',3,1,38,NULL);
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
INSERT INTO px_sync_type VALUES(1,0,'thing',4,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(1,1,'KNOWS',2,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(2,0,'thing',0,1,2,1,0,0);
INSERT INTO px_sync_type VALUES(2,1,'KNOWS',0,0,1,1,0,0);
CREATE TABLE px_name (
    name_id INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE
);
INSERT INTO px_name VALUES(1,'thing');
INSERT INTO px_name VALUES(2,'KNOWS');
CREATE TABLE px_claims (
    claims_id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL,
    claims    TEXT NOT NULL,
    UNIQUE (source_id, claims)
);
INSERT INTO px_claims VALUES(1,1,'[["users",null]]');
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
, checksum INTEGER);
INSERT INTO px_entity VALUES(2,1,X'5ece30ee346a001ba015b9dd32180324',X'71d3b92e265c59ea02481796e0b40551',1,NULL,1,NULL,'2',NULL,'{"value":0}',1,1,-844103156934658045);
INSERT INTO px_entity VALUES(3,1,X'aa9118a52ba9582678ec63a69c7ecbaa',X'7a869e0a61028f7a26fe3fed0f60eb32',1,NULL,1,NULL,'0',NULL,'{"value":1}',1,2,-5737629817315385873);
INSERT INTO px_entity VALUES(4,1,X'e57f52a3196c556b90aaa0de29d60ee5',X'23465ff0dbac9cdd8e8ee717272c23b0',1,NULL,1,NULL,'1',NULL,'{"value":0}',1,1,-3787732435740419300);
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
, checksum INTEGER);
INSERT INTO px_relationship VALUES(2,1,X'c5aae69b7aa87341da9867f7ac6683e4',X'eb29720459c68296149ddf5a63f175cf',1,NULL,X'aa9118a52ba9582678ec63a69c7ecbaa',2,X'e57f52a3196c556b90aaa0de29d60ee5',NULL,'{"value":0}',1,1,8754734746118206932);
CREATE TABLE px_edge_from (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO px_edge_from VALUES(X'aa9118a52ba9582678ec63a69c7ecbaa',2);
CREATE TABLE px_edge_to (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO px_edge_to VALUES(X'e57f52a3196c556b90aaa0de29d60ee5',2);
CREATE TABLE px_waiting (
    relationship INTEGER NOT NULL,
    missing      BLOB NOT NULL,
    PRIMARY KEY (relationship, missing)
) WITHOUT ROWID;
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
, changeset INTEGER);
INSERT INTO px_change VALUES(1,2,1,1,'deleted',X'a83da1335a89e5606432cda87ee3db46',X'8716e3469f5a7577df3fa3f79817fd49',1,2,NULL,NULL,NULL,X'e57f52a3196c556b90aaa0de29d60ee5',X'5ece30ee346a001ba015b9dd32180324','{"value":0}',1,1,NULL);
INSERT INTO px_change VALUES(2,2,1,0,'deleted',X'1a0fd659920e679223fd0a02db886ddd',X'845fc0883c7b544fbf61b3478812646b',1,1,NULL,'3',NULL,NULL,NULL,'{"value":0}',1,1,NULL);
INSERT INTO px_change VALUES(3,2,1,0,'updated',X'aa9118a52ba9582678ec63a69c7ecbaa',X'92f408e9f21abed19334016a4ebe5a91',1,1,NULL,'0',NULL,NULL,NULL,'{"value":0}',1,1,NULL);
CREATE TABLE px_digest (
    source_id INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    sums      BLOB NOT NULL,
    PRIMARY KEY (source_id, kind)
);
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
CREATE TABLE px_claim (
    source_id      INTEGER NOT NULL,
    step_id        TEXT NOT NULL,
    scope          TEXT,
    looked_sync    INTEGER,
    missed_sync    INTEGER,
    missed_because TEXT
);
INSERT INTO px_claim VALUES(1,'users',NULL,2,NULL,NULL);
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
INSERT INTO px_journal VALUES(1,-959943787299294775,'script','1','sync-1',1,1,1795433054039465,'{"v":1,"seq":1,"at":"2026-11-23T11:24:14.039414Z","connector_id":"script","account_id":"1","sync_id":"sync-1","kind":"committed","outcome":"committed","replayed":false,"stats":{"entities_created":4,"entities_updated":0,"entities_unchanged":0,"entities_deleted":0,"entities_kept":0,"entities_held":0,"entities_rejected":0,"entities_duplicates":0,"relationships_created":2,"relationships_updated":0,"relationships_unchanged":0,"relationships_deleted":0,"relationships_kept":0,"relationships_held":0,"relationships_rejected":0,"relationships_duplicates":0}}',748782419692380232);
INSERT INTO px_journal VALUES(2,4279268430537059185,'script','1','sync-2',1,1,1795433054042130,'{"v":1,"seq":1,"at":"2026-11-23T11:24:14.042114Z","connector_id":"script","account_id":"1","sync_id":"sync-2","kind":"committed","outcome":"committed","replayed":false,"stats":{"entities_created":0,"entities_updated":1,"entities_unchanged":2,"entities_deleted":1,"entities_kept":0,"entities_held":0,"entities_rejected":0,"entities_duplicates":0,"relationships_created":0,"relationships_updated":0,"relationships_unchanged":1,"relationships_deleted":1,"relationships_kept":0,"relationships_held":0,"relationships_rejected":0,"relationships_duplicates":0}}',1718373809769933087);
DELETE FROM sqlite_sequence;
CREATE UNIQUE INDEX px_entity_compare ON px_entity (source_id, id, hash, claims, held, type);
CREATE INDEX px_entity_id ON px_entity (lower(hex(id)));
CREATE INDEX px_entity_type ON px_entity (type);
CREATE UNIQUE INDEX px_relationship_compare
    ON px_relationship (source_id, id, hash, claims, held, verb);
CREATE INDEX px_waiting_missing ON px_waiting (missing);
CREATE INDEX px_change_id ON px_change (lower(hex(id)));
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
CREATE INDEX px_change_source ON px_change (source_id, sync);
CREATE INDEX px_sync_source ON px_sync (source_id, sync);
CREATE INDEX px_entity_held ON px_entity (source_id, held) WHERE held IS NOT NULL;
CREATE INDEX px_relationship_held ON px_relationship (source_id, held) WHERE held IS NOT NULL;
CREATE INDEX px_changeset_source ON px_changeset (source_id, state);
CREATE UNIQUE INDEX px_claim_name ON px_claim (source_id, step_id, ifnull(scope, x''));
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
CREATE INDEX px_journal_sync ON px_journal (sync_id, run, first_seq);
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
CREATE INDEX px_sync_id ON px_sync (sync_id);
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
    y.undelivered_events,
    y.sync AS number
FROM px_sync y
JOIN px_source s ON s.source_id = y.source_id;
CREATE VIEW parallax_source AS
-- Looked for from the few that wait, once for all sources, and not among all relationships.
WITH waiting AS MATERIALIZED (
    SELECT r.source_id, count(DISTINCT w.relationship) AS relationships
    FROM px_waiting w CROSS JOIN px_relationship r ON r.n = w.relationship
    GROUP BY r.source_id
)
SELECT
    s.connector_id,
    s.account_id,
    s.entities,
    s.relationships,
    (SELECT count(*) FROM px_entity e WHERE e.source_id = s.source_id AND e.held > 0)
        AS entities_held,
    (SELECT count(*) FROM px_relationship r WHERE r.source_id = s.source_id AND r.held > 0)
        AS relationships_held,
    ifnull(u.entities_kept, 0) AS entities_kept,
    ifnull(u.relationships_kept, 0) AS relationships_kept,
    ifnull((SELECT w.relationships FROM waiting w WHERE w.source_id = s.source_id), 0)
        AS relationships_waiting,
    (SELECT count(*) FROM px_sync y WHERE y.source_id = s.source_id) AS syncs,
    l.sync_id AS last_sync_id,
    l.outcome AS last_outcome,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.committed_at / 1e6, 'unixepoch') AS last_sync_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.committed_at / 1e6, 'unixepoch') AS last_success_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', c.committed_at / 1e6, 'unixepoch') AS last_complete_at
FROM px_source s
LEFT JOIN px_sync l ON l.sync = s.last_sync
LEFT JOIN px_sync u ON u.sync = s.last_success_sync
LEFT JOIN px_sync c ON c.sync = s.last_complete_sync
;
COMMIT;
