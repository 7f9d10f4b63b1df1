-- What a fleet asks for takes no longer the more there is that it did not ask for.

-- A sync is found by its id, or by how that begins.
CREATE INDEX px_sync_id ON px_sync (sync_id);

DROP VIEW parallax_sync;
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

DROP VIEW parallax_source;
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
LEFT JOIN px_sync c ON c.sync = s.last_complete_sync;
