-- A store of version 1, with two sources, an update, deletes, a failed step and a scope that was not
-- completed: as `sqlite3 .dump` writes it.
PRAGMA application_id = 1347570776;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "px_change" VALUES(1,3,1,1,'deleted',X'1E740617F8992909CB3E028CBDBBED08',X'D18ACF3088A010692CD3B0F3616EAE2A',1,2,NULL,NULL,NULL,X'9CD126F5744011253345CB8EAA7B6B2E',X'56E7D59AF506892E091B56EC99840AC4','{"value":0}',1,1);
INSERT INTO "px_change" VALUES(2,3,1,1,'deleted',X'A83DA1335A89E5606432CDA87EE3DB46',X'4E074E7DE07770123521B55C1516818B',1,2,NULL,NULL,NULL,X'E57F52A3196C556B90AAA0DE29D60EE5',X'5ECE30EE346A001BA015B9DD32180324','{"value":0}',1,1);
INSERT INTO "px_change" VALUES(3,3,1,0,'deleted',X'1E816202475081919695C016CDABD08A',X'69B8484445323018F978851EB0FA2C56',2,1,NULL,'11',NULL,NULL,NULL,'{"value":0}',1,1);
INSERT INTO "px_change" VALUES(4,3,1,0,'deleted',X'9CD126F5744011253345CB8EAA7B6B2E',X'560AA10B1FAF0A7EA9DA1C898D93C683',1,1,NULL,'5',NULL,NULL,NULL,'{"value":0}',1,1);
INSERT INTO "px_change" VALUES(5,3,1,0,'updated',X'AA9118A52BA9582678EC63A69C7ECBAA',X'4085A8C014A6AA0CC206F23EDFB12D0B',1,1,NULL,'0',NULL,NULL,NULL,'{"value":0}',1,1);
CREATE TABLE px_claims (
    claims_id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL,
    claims    TEXT NOT NULL,
    UNIQUE (source_id, claims)
);
INSERT INTO "px_claims" VALUES(1,1,'[["users",null]]');
INSERT INTO "px_claims" VALUES(2,1,'[["hosts","eu"]]');
INSERT INTO "px_claims" VALUES(3,1,'[["groups",null]]');
INSERT INTO "px_claims" VALUES(4,1,'[["hosts","us"]]');
INSERT INTO "px_claims" VALUES(5,1,'[["groups",null],["users",null]]');
INSERT INTO "px_claims" VALUES(6,2,'[["users",null]]');
CREATE TABLE px_edge_from (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO "px_edge_from" VALUES(X'AA9118A52BA9582678EC63A69C7ECBAA',3);
CREATE TABLE px_edge_to (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO "px_edge_to" VALUES(X'E57F52A3196C556B90AAA0DE29D60EE5',3);
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
INSERT INTO "px_entity" VALUES(1,1,X'1A0FD659920E679223FD0A02DB886DDD',X'9BB0C57550CF7F9E55BD6EDD97D91EA1',1,NULL,1,NULL,'3',NULL,'{"value":0}',1,1);
INSERT INTO "px_entity" VALUES(3,1,X'24976667CB87FFAEBAB208BB0724358F',X'D17C0AB5ED9139B7CA9F3D5BCE8B8908',3,NULL,1,NULL,'20',NULL,'{"value":0}',1,1);
INSERT INTO "px_entity" VALUES(4,1,X'59EA38AE47A253E5FFF241646CBEB1F4',X'565E2E305C7364E3B81853E62D534032',1,NULL,1,NULL,'4',NULL,'{"value":0}',1,1);
INSERT INTO "px_entity" VALUES(5,1,X'5ECE30EE346A001BA015B9DD32180324',X'55CB246656E013B9788BD699278FB558',1,NULL,1,NULL,'2',NULL,'{"value":0}',1,1);
INSERT INTO "px_entity" VALUES(6,1,X'9416D8A3EC96BF9657F34C2891288C0F',X'F435CB491C1B4D0EBD1C6508975E4516',4,NULL,1,NULL,'12',NULL,'{"value":0}',1,1);
INSERT INTO "px_entity" VALUES(8,1,X'AA9118A52BA9582678EC63A69C7ECBAA',X'4F9FCD7C19115AE6B06F2208FAEE47F2',1,NULL,1,NULL,'0',NULL,'{"value":1}',1,3);
INSERT INTO "px_entity" VALUES(9,1,X'E4F56F52D503AEA47817B778419C06A1',X'A13AB53F48312DF9C795A5BF08DF8BBC',2,NULL,1,NULL,'10',NULL,'{"value":0}',1,1);
INSERT INTO "px_entity" VALUES(10,1,X'E57F52A3196C556B90AAA0DE29D60EE5',X'1A0BDEC83EE60C9C68C2DAA0626EB66E',5,NULL,1,NULL,'1',NULL,'{"value":0}',1,1);
INSERT INTO "px_entity" VALUES(11,2,X'6A303D6D1E899C5BFE54EE6BB7F461B6',X'4085A8C014A6AA0CC206F23EDFB12D0B',6,NULL,1,NULL,'0',NULL,'{"value":0}',2,2);
INSERT INTO "px_entity" VALUES(12,2,X'8C0DAEE918CB3B3FFC635D3182BD0116',X'1A0BDEC83EE60C9C68C2DAA0626EB66E',6,NULL,1,NULL,'1',NULL,'{"value":0}',2,2);
CREATE TABLE px_meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO "px_meta" VALUES('hash_seed',X'E2F6EA18E705E719');
INSERT INTO "px_meta" VALUES('store_id',X'F813E9B25178FAD5452B24794C5CFCBB');
CREATE TABLE px_name (
    name_id INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE
);
INSERT INTO "px_name" VALUES(1,'thing');
INSERT INTO "px_name" VALUES(2,'KNOWS');
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
INSERT INTO "px_relationship" VALUES(3,1,X'C5AAE69B7AA87341DA9867F7AC6683E4',X'8EDBFC4A6B04846D6B5F0EE2ABAAF80B',1,NULL,X'AA9118A52BA9582678EC63A69C7ECBAA',2,X'E57F52A3196C556B90AAA0DE29D60EE5',NULL,'{"value":0}',1,1);
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
INSERT INTO "px_source" VALUES(1,'script','1',2,X'23D0F255E70D3DC2A8F651A197839C7F',3,3,3,1,8,1);
INSERT INTO "px_source" VALUES(2,'script','2',1,X'23D0F255E70D3DC2A8F651A197839C7F',2,2,2,2,2,0);
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
INSERT INTO "px_sync" VALUES(1,1,'sync-1','','committed',X'496C52F13A4E8C58162AD1B6403E3377',1795357746449434,93,1795357746449934,0,10,0,0,0,0,0,0,1,3,0,0,0,0,0,0,0);
INSERT INTO "px_sync" VALUES(2,2,'sync-1','','committed',X'3806599F8030CC77E38719DE2DFBEAED',1795357746546616,79,1795357746547473,0,2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "px_sync" VALUES(3,1,'sync-2','','partial',X'3DD3AC8FE0B6AED7554E0E213E15FBEC',1795357746599384,93,1795357746609633,0,0,1,5,2,2,0,0,0,0,0,1,2,0,0,0,0);
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
INSERT INTO "px_sync_step" VALUES(1,0,'users','completed',6,3,73,NULL);
INSERT INTO "px_sync_step" VALUES(1,1,'hosts','completed',3,0,27,NULL);
INSERT INTO "px_sync_step" VALUES(1,2,'groups','completed',2,0,14,NULL);
INSERT INTO "px_sync_step" VALUES(2,0,'users','completed',2,0,51,NULL);
INSERT INTO "px_sync_step" VALUES(3,0,'users','completed',5,1,79,NULL);
INSERT INTO "px_sync_step" VALUES(3,1,'hosts','incomplete',1,0,44,'us: was not completed');
INSERT INTO "px_sync_step" VALUES(3,2,'groups','failed',0,0,13,'told to');
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
INSERT INTO "px_sync_type" VALUES(1,0,'thing',10,0,0,0,0,0);
INSERT INTO "px_sync_type" VALUES(1,1,'KNOWS',3,0,0,0,0,0);
INSERT INTO "px_sync_type" VALUES(2,0,'thing',2,0,0,0,0,0);
INSERT INTO "px_sync_type" VALUES(3,0,'thing',0,1,5,2,2,0);
INSERT INTO "px_sync_type" VALUES(3,1,'KNOWS',0,0,1,2,0,0);
CREATE TABLE px_waiting (
    relationship INTEGER NOT NULL,
    missing      BLOB NOT NULL,
    PRIMARY KEY (relationship, missing)
) WITHOUT ROWID;
CREATE UNIQUE INDEX px_entity_compare ON px_entity (source_id, id, hash, claims, held, type);
CREATE INDEX px_entity_id ON px_entity (lower(hex(id)));
CREATE INDEX px_entity_type ON px_entity (type);
CREATE UNIQUE INDEX px_relationship_compare
    ON px_relationship (source_id, id, hash, claims, held, verb);
CREATE INDEX px_waiting_missing ON px_waiting (missing);
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
COMMIT;
