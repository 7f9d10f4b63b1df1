-- A store of version 2: a source with deletes that are held, of which some have come back; as
-- `sqlite3 .dump` writes it.
PRAGMA application_id = 1347570776;
PRAGMA user_version = 2;
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
, changeset INTEGER);
INSERT INTO "px_change" VALUES(1,3,1,0,'updated',X'AA9118A52BA9582678EC63A69C7ECBAA',X'5FCB09FCAD21F0CE8A548E40E77DC092',1,1,NULL,'0',NULL,NULL,NULL,'{"value":0}',1,1,NULL);
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
INSERT INTO "px_changeset" VALUES(1,1,2,'all 12 of thing would go',12,1,'open',NULL,NULL);
CREATE TABLE px_claim (
    source_id      INTEGER NOT NULL,
    step_id        TEXT NOT NULL,
    scope          TEXT,
    looked_sync    INTEGER,
    missed_sync    INTEGER,
    missed_because TEXT
);
INSERT INTO "px_claim" VALUES(1,'users',NULL,3,NULL,NULL);
CREATE TABLE px_claims (
    claims_id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL,
    claims    TEXT NOT NULL,
    UNIQUE (source_id, claims)
);
INSERT INTO "px_claims" VALUES(1,1,'[["users",null]]');
CREATE TABLE px_digest (
    source_id INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    sums      BLOB NOT NULL,
    PRIMARY KEY (source_id, kind)
);
CREATE TABLE px_edge_from (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO "px_edge_from" VALUES(X'AA9118A52BA9582678EC63A69C7ECBAA',1);
CREATE TABLE px_edge_to (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO "px_edge_to" VALUES(X'E57F52A3196C556B90AAA0DE29D60EE5',1);
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
INSERT INTO "px_entity" VALUES(1,1,X'159C5FD12EA10AB63B1305CBB5B35410',X'D4CE9EA99EC1010ACE7764303A29CE01',1,1,1,NULL,'8',NULL,'{"value":0}',1,1,-2492547993066445280);
INSERT INTO "px_entity" VALUES(2,1,X'1A0FD659920E679223FD0A02DB886DDD',X'DA2E8C11E6D22C5561B12097173CCDCD',1,1,1,NULL,'3',NULL,'{"value":0}',1,1,9204086416271492710);
INSERT INTO "px_entity" VALUES(3,1,X'1E816202475081919695C016CDABD08A',X'07AB88A9EA763A4CADB07EFC0F3A2450',1,1,1,NULL,'11',NULL,'{"value":0}',1,1,6029789563782928436);
INSERT INTO "px_entity" VALUES(4,1,X'4A1BFC92093F2D6249A4DC47B333F4CA',X'CDD1E3C84CE5C7EE3A39D7CB5425F5DD',1,1,1,NULL,'6',NULL,'{"value":0}',1,1,4766905340361850372);
INSERT INTO "px_entity" VALUES(5,1,X'59EA38AE47A253E5FFF241646CBEB1F4',X'C8B028DD04E4256EEF92F8D353AA875E',1,1,1,NULL,'4',NULL,'{"value":0}',1,1,-6668305605947717347);
INSERT INTO "px_entity" VALUES(6,1,X'5ECE30EE346A001BA015B9DD32180324',X'6082CC0E85DEC071B4444C0E4873FC94',1,NULL,1,NULL,'2',NULL,'{"value":0}',1,1,-844103156934658045);
INSERT INTO "px_entity" VALUES(7,1,X'7BEF6A3E2620440A9736E9345033E568',X'976A49EC4EA29C0CC351839F10BDF489',1,1,1,NULL,'7',NULL,'{"value":0}',1,1,-2886601853119135058);
INSERT INTO "px_entity" VALUES(8,1,X'9CD126F5744011253345CB8EAA7B6B2E',X'BBB7AD6DFDB654C2535FB782AF9A1C96',1,1,1,NULL,'5',NULL,'{"value":0}',1,1,9153437739544371732);
INSERT INTO "px_entity" VALUES(9,1,X'AA9118A52BA9582678EC63A69C7ECBAA',X'6BA9A59561AD2963412ED39C59D5A46A',1,NULL,1,NULL,'0',NULL,'{"value":1}',1,3,-5737629817315385873);
INSERT INTO "px_entity" VALUES(10,1,X'B3103106FF21146168F779ADB6DE6250',X'5F9C8AD5CA9421C197E29BC9CAE1F60B',1,1,1,NULL,'9',NULL,'{"value":0}',1,1,-2515417710346057149);
INSERT INTO "px_entity" VALUES(11,1,X'E4F56F52D503AEA47817B778419C06A1',X'6D7C3C294F0F064FCE0034B842025B6B',1,1,1,NULL,'10',NULL,'{"value":0}',1,1,6177999343362040223);
INSERT INTO "px_entity" VALUES(12,1,X'E57F52A3196C556B90AAA0DE29D60EE5',X'1383085C588A40386BDEA49C99F42557',1,NULL,1,NULL,'1',NULL,'{"value":0}',1,1,-3787732435740419300);
CREATE TABLE px_meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO "px_meta" VALUES('epoch',3);
INSERT INTO "px_meta" VALUES('hash_seed',X'6D370DDBC61C29A1');
INSERT INTO "px_meta" VALUES('lineage',X'3D5F5B9AD61B6344AC0C4D4F1598A107');
INSERT INTO "px_meta" VALUES('store_id',X'9003002472B5BE7BBDF7C5A07A6EA4F8');
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
, checksum INTEGER);
INSERT INTO "px_relationship" VALUES(1,1,X'C5AAE69B7AA87341DA9867F7AC6683E4',X'D2D7666AE1986407AF41E48CCA6484AF',1,NULL,X'AA9118A52BA9582678EC63A69C7ECBAA',2,X'E57F52A3196C556B90AAA0DE29D60EE5',NULL,'{"value":0}',1,1,8754734746118206932);
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
INSERT INTO "px_source" VALUES(1,'script','1',3,X'4C7DB79F3389AD8163608C960548F45B',3,3,3,3,12,1,X'15FF8F47DC98D39D5769B06EA9A78861',1);
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
INSERT INTO "px_sync" VALUES(1,1,'sync-1','','committed',X'70787F0B183708B1F566CEEFAF90927F',1795371759544145,198,1795371759546338,0,12,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0);
INSERT INTO "px_sync" VALUES(2,1,'sync-2','','committed',X'A6E1D00656335658BF62AF3B83D821AD',1795371759562137,153,1795371759579828,0,0,0,0,0,0,12,0,0,0,0,0,0,0,1,0,0);
INSERT INTO "px_sync" VALUES(3,1,'sync-3','','committed',X'002AFCED8E3A52C2FC99786A317BEE0E',1795371759603886,80,1795371759609235,0,0,1,2,0,0,9,0,0,0,0,1,0,0,0,0,0);
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
INSERT INTO "px_sync_step" VALUES(1,0,'users','completed',12,1,82,NULL);
INSERT INTO "px_sync_step" VALUES(2,0,'users','completed',0,0,28,NULL);
INSERT INTO "px_sync_step" VALUES(3,0,'users','completed',3,1,55,NULL);
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
INSERT INTO "px_sync_type" VALUES(1,0,'thing',12,0,0,0,0,0);
INSERT INTO "px_sync_type" VALUES(1,1,'KNOWS',1,0,0,0,0,0);
INSERT INTO "px_sync_type" VALUES(2,0,'thing',0,0,0,0,0,12);
INSERT INTO "px_sync_type" VALUES(2,1,'KNOWS',0,0,0,0,0,1);
INSERT INTO "px_sync_type" VALUES(3,0,'thing',0,1,2,0,0,9);
INSERT INTO "px_sync_type" VALUES(3,1,'KNOWS',0,0,1,0,0,0);
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
CREATE INDEX px_change_source ON px_change (source_id, sync);
CREATE INDEX px_sync_source ON px_sync (source_id, sync);
CREATE INDEX px_entity_held ON px_entity (source_id, held) WHERE held IS NOT NULL;
CREATE INDEX px_relationship_held ON px_relationship (source_id, held) WHERE held IS NOT NULL;
CREATE INDEX px_changeset_source ON px_changeset (source_id, state);
CREATE UNIQUE INDEX px_claim_name ON px_claim (source_id, step_id, ifnull(scope, x''));
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
INSERT INTO "sqlite_sequence" VALUES('px_changeset',1);
COMMIT;
