//! Damage is found and named, wherever it is.

use std::fs;
use std::path::{Path, PathBuf};

use parallax_connect::{
    self as connect, Connector, ConnectorError, Step, StepContext, entity, relationship,
    run_connector,
};
use parallax_store::{Store, Verification};
use parallax_tests::{End, Rec};
use tempfile::TempDir;

use crate::support::{ending, keys, run, script, step};

/// A file with two sources, a waiting relationship, an update and deletes.
async fn stored() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let store = Store::open(&url(&path)).await.unwrap();
    let link = |from, to| Rec::Link { from, to, value: 0 };
    let first = [keys(0..6), vec![link(0, 1), link(1, 2), link(5, 9)]].concat();
    let changed = [keys(1..5), vec![link(1, 2), link(5, 9)]].concat();
    let changed = [changed, vec![Rec::Entity { key: 0, value: 1 }]].concat();
    let groups = || step("groups", keys([20]));
    for (account, sync_id, steps) in [
        ("1", "s-1", [step("users", first), groups()]),
        ("2", "s-2", [step("users", keys([0, 1])), groups()]),
        (
            "1",
            "s-3",
            [step("users", changed), ending(groups(), End::Error)],
        ),
    ] {
        let output = run(&script(steps), account, sync_id).await;
        store.commit_sync(&output).await.unwrap();
    }
    (directory, path)
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

async fn verify(path: &Path) -> Verification {
    let store = Store::open_read_only(&url(path)).await.unwrap();
    store.verify().await.unwrap()
}

fn problems(verification: &Verification) -> String {
    let problems = verification.problems.iter();
    let lines: Vec<_> = problems
        .map(|problem| format!("{}: {}", problem.check, problem.details))
        .collect();
    lines.join("\n")
}

#[tokio::test]
async fn sound_store_has_no_problems() {
    let (_directory, path) = stored().await;
    let verification = verify(&path).await;
    assert_eq!(problems(&verification), "");
    assert!(verification.is_sound());
    let checks: Vec<_> = verification
        .checks
        .iter()
        .filter(|check| !["pages", "tables", "settings"].contains(&check.name))
        .map(|check| format!("{} {}", check.name, check.checked))
        .collect();
    insta::assert_snapshot!(checks.join("\n"), @"
    sources 2
    syncs 3
    claims 4
    entities 9
    relationships 2
    digests 0
    edges 4
    waiting 2
    changesets 0
    history 3
    journals 3
    ");
}

/// Each of these leaves a file that the engine itself takes for sound.
#[tokio::test]
async fn broken_promise_is_found_and_named() {
    let (_directory, path) = stored().await;
    let whole = fs::read(&path).unwrap();
    let breaks = [
        "UPDATE px_entity SET properties = replace(properties, '0', '7') WHERE n = 3",
        "UPDATE px_entity SET key = 'x' WHERE n = 3",
        "UPDATE px_entity SET key = cast(key AS BLOB) WHERE n = 3",
        "UPDATE px_entity SET display_name = '' WHERE n = 3",
        "UPDATE px_entity SET class = type WHERE n = 3",
        "UPDATE px_entity SET checksum = checksum + 1 WHERE n = 3",
        "UPDATE px_relationship SET properties = '{\"value\":7}' WHERE n = 2",
        "UPDATE px_entity SET properties = '[]' WHERE n = 3",
        "UPDATE px_entity SET properties = '{' WHERE n = 3",
        "UPDATE px_entity SET id = x'00' WHERE n = 3",
        "UPDATE px_entity SET type = 77 WHERE n = 3",
        "UPDATE px_entity SET class = 77 WHERE n = 3",
        "UPDATE px_entity SET claims = 77 WHERE n = 3",
        "UPDATE px_entity SET claims = (SELECT claims FROM px_entity WHERE source_id = 2) WHERE n = 3",
        "UPDATE px_entity SET source_id = 77 WHERE n = 3",
        "UPDATE px_entity SET held = 7 WHERE n = 3",
        "UPDATE px_entity SET held = -7 WHERE n = 3",
        "UPDATE px_entity SET created_sync = 4 WHERE n = 3",
        "UPDATE px_entity SET id = (SELECT id FROM px_entity WHERE n = 2) WHERE n = 3",
        "UPDATE px_relationship SET id = (SELECT id FROM px_relationship WHERE n = 1) WHERE n = 2",
        "DELETE FROM px_entity WHERE n = 3",
        "DELETE FROM px_relationship WHERE n = 2",
        "DELETE FROM px_edge_from WHERE relationship = 2",
        "DELETE FROM px_edge_to WHERE relationship = 2",
        "INSERT INTO px_edge_from VALUES (x'00', 2)",
        "INSERT INTO px_edge_to VALUES (x'00', 77)",
        "DELETE FROM px_waiting",
        "INSERT INTO px_waiting SELECT 2, from_id FROM px_relationship WHERE n = 2",
        "INSERT INTO px_waiting VALUES (77, x'00')",
        "UPDATE px_source SET entities = 7 WHERE source_id = 2",
        "UPDATE px_source SET relationships = 3 WHERE source_id = 1",
        "UPDATE px_source SET changes = 77 WHERE source_id = 1",
        "UPDATE px_source SET last_complete_sync = 2 WHERE source_id = 1",
        "UPDATE px_sync SET outcome = 'fine' WHERE sync = 1",
        "UPDATE px_sync SET entities_unchanged = 77 WHERE sync = 3",
        "UPDATE px_sync SET relationships_created = 77 WHERE sync = 1",
        "DELETE FROM px_sync_type WHERE sync = 2",
        "DELETE FROM px_sync WHERE sync = 2",
        "UPDATE px_claims SET claims = '[[1]]' WHERE claims_id = 1",
        "UPDATE px_claims SET claims = '[]' WHERE claims_id = 1",
        "UPDATE px_claims SET source_id = 77 WHERE claims_id = 1",
        "INSERT INTO px_claim VALUES (77, 'users', NULL, 1, NULL, NULL)",
        "INSERT INTO px_digest VALUES (1, 0, zeroblob(65536))",
        "INSERT INTO px_digest VALUES (77, 7, x'00')",
        "DELETE FROM px_name WHERE name = 'thing'",
        "INSERT INTO px_changeset VALUES (7, 1, 1, 'too many', 1, 0, 'open', NULL, NULL)",
        "INSERT INTO px_changeset VALUES (7, 77, 1, 'too many', 1, 0, 'done', NULL, NULL)",
        "UPDATE px_change SET action = 'lost' WHERE change = 1",
        "UPDATE px_change SET properties = '' WHERE change = 1",
        "UPDATE px_change SET properties = '{}'",
        "UPDATE px_change SET key = cast(key AS BLOB) WHERE kind = 0",
        "UPDATE px_change SET kind = 7 WHERE change = 1",
        "UPDATE px_change SET claims = 77 WHERE change = 1",
        "UPDATE px_change SET to_id = NULL WHERE kind = 1",
        "UPDATE px_journal SET first_seq = -9223372036854775808 WHERE chunk = 1",
        "DELETE FROM px_meta WHERE key = 'store_id'",
        "DROP INDEX px_entity_type",
        "DROP VIEW parallax_entity",
        "DROP TABLE px_edge_to",
    ];
    let mut found = Vec::new();
    for sql in breaks {
        fs::write(&path, &whole).unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        if let Err(error) = file.execute_batch(sql) {
            panic!("{sql}: {error}");
        }
        file.close().unwrap();
        let verification = verify(&path).await;
        assert!(!verification.is_sound(), "{sql}");
        found.push(sql.to_owned());
        let problems = problems(&verification);
        found.extend(problems.lines().take(3).map(|line| format!("  {line}")));
        let more = problems.lines().count().saturating_sub(3);
        found.extend((more > 0).then(|| format!("  and {more} more")));
    }
    insta::assert_snapshot!(found.join("\n"), @r#"
    UPDATE px_entity SET properties = replace(properties, '0', '7') WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "4": it is not what was stored
    UPDATE px_entity SET key = 'x' WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "x": it is not what was stored
    UPDATE px_entity SET key = cast(key AS BLOB) WHERE n = 3
      entities: entity of row 3: it cannot be read: Invalid type
    UPDATE px_entity SET display_name = '' WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "4": it is not what was stored
    UPDATE px_entity SET class = type WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "4": it is not what was stored
    UPDATE px_entity SET checksum = checksum + 1 WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "4": it is not what was stored
    UPDATE px_relationship SET properties = '{"value":7}' WHERE n = 2
      relationships: relationship a83da1335a89e5606432cda87ee3db46, row 2: it is not what was stored
    UPDATE px_entity SET properties = '[]' WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: its properties are no object
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "4": it is not what was stored
    UPDATE px_entity SET properties = '{' WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: its properties are not JSON
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "4": it is not what was stored
    UPDATE px_entity SET id = x'00' WHERE n = 3
      entities: entity 00, row 3: its id is none
      entities: entity of row 3: it cannot be read: Conversion error from type Blob at index: 2, Cannot read 16 byte value out of 1 byte blob
    UPDATE px_entity SET type = 77 WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: its type, name 77, is not there
    UPDATE px_entity SET class = 77 WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: its class, name 77, is not there
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3, key "4": it is not what was stored
    UPDATE px_entity SET claims = 77 WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: claims 77 are not there
    UPDATE px_entity SET claims = (SELECT claims FROM px_entity WHERE source_id = 2) WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: claims 3 are of another source
    UPDATE px_entity SET source_id = 77 WHERE n = 3
      sources: source 1 says that it has 6 entities, and has 5
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: source 77 is not there
    UPDATE px_entity SET held = 7 WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: changeset 7, which holds it or did so, is not there or not open
    UPDATE px_entity SET held = -7 WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: changeset 7, which holds it or did so, is not there or not rejected
    UPDATE px_entity SET created_sync = 4 WHERE n = 3
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: it was changed before it was created
    UPDATE px_entity SET id = (SELECT id FROM px_entity WHERE n = 2) WHERE n = 3
      entities: entity 24976667cb87ffaebab208bb0724358f is there 2 times in source 1
      entities: entity 24976667cb87ffaebab208bb0724358f, row 3, key "4": it is not what was stored
    UPDATE px_relationship SET id = (SELECT id FROM px_relationship WHERE n = 1) WHERE n = 2
      relationships: relationship 255c079e79bc47c4a90b3ab9074c49fd is there 2 times in source 1
      relationships: relationship 255c079e79bc47c4a90b3ab9074c49fd, row 2: it is not what was stored
    DELETE FROM px_entity WHERE n = 3
      sources: source 1 says that it has 6 entities, and has 5
    DELETE FROM px_relationship WHERE n = 2
      sources: source 1 says that it has 2 relationships, and has 1
      edges: an edge says that the relationship of row 2 begins at entity e57f52a3196c556b90aaa0de29d60ee5
      edges: an edge says that the relationship of row 2 ends at entity 5ece30ee346a001ba015b9dd32180324
    DELETE FROM px_edge_from WHERE relationship = 2
      edges: relationship a83da1335a89e5606432cda87ee3db46, row 2: its beginning is not among the edges
    DELETE FROM px_edge_to WHERE relationship = 2
      edges: relationship a83da1335a89e5606432cda87ee3db46, row 2: its end is not among the edges
    INSERT INTO px_edge_from VALUES (x'00', 2)
      edges: an edge says that the relationship of row 2 begins at entity 00
      waiting: the relationship of row 2 does not wait for entity 00, which is not there
    INSERT INTO px_edge_to VALUES (x'00', 77)
      edges: an edge says that the relationship of row 77 ends at entity 00
      waiting: the relationship of row 77 does not wait for entity 00, which is not there
    DELETE FROM px_waiting
      waiting: the relationship of row 1 does not wait for entity 9cd126f5744011253345cb8eaa7b6b2e, which is not there
      waiting: the relationship of row 1 does not wait for entity b3103106ff21146168f779adb6de6250, which is not there
    INSERT INTO px_waiting SELECT 2, from_id FROM px_relationship WHERE n = 2
      waiting: the relationship of row 2 waits for entity e57f52a3196c556b90aaa0de29d60ee5, which is there
    INSERT INTO px_waiting VALUES (77, x'00')
      waiting: the relationship of row 77 waits for entity 00, and is not there
    UPDATE px_source SET entities = 7 WHERE source_id = 2
      sources: source 2 says that it has 7 entities, and has 3
      syncs: the syncs of source 2 left 3 entities and 0 relationships, and it has 7 and 0
    UPDATE px_source SET relationships = 3 WHERE source_id = 1
      sources: source 1 says that it has 3 relationships, and has 2
      syncs: the syncs of source 1 left 6 entities and 2 relationships, and it has 6 and 3
    UPDATE px_source SET changes = 77 WHERE source_id = 1
      sources: source 1 says that its history has 77 changes, and it has 3
    UPDATE px_source SET last_complete_sync = 2 WHERE source_id = 1
      sources: source 1 names 2 as its last complete sync, which is not there
    UPDATE px_sync SET outcome = 'fine' WHERE sync = 1
      syncs: sync 1 has no known outcome: 'fine'
    UPDATE px_sync SET entities_unchanged = 77 WHERE sync = 3
      syncs: sync 3 counts other entities than all their types together
    UPDATE px_sync SET relationships_created = 77 WHERE sync = 1
      syncs: sync 1 counts other relationships than all their verbs together
      syncs: the syncs of source 1 left 6 entities and 76 relationships, and it has 6 and 2
    DELETE FROM px_sync_type WHERE sync = 2
      syncs: sync 2 counts other entities than all their types together
    DELETE FROM px_sync WHERE sync = 2
      sources: source 2 names 2 as its last sync, which is not there
      sources: source 2 names 2 as its last successful sync, which is not there
      sources: source 2 names 2 as its last complete sync, which is not there
      and 4 more
    UPDATE px_claims SET claims = '[[1]]' WHERE claims_id = 1
      claims: claims 1 cannot be read: "[[1]]"
    UPDATE px_claims SET claims = '[]' WHERE claims_id = 1
      claims: claims 1 cannot be read: "[]"
    UPDATE px_claims SET source_id = 77 WHERE claims_id = 1
      claims: claims 1 are of source 77, which is not there
      entities: entity 1a0fd659920e679223fd0a02db886ddd, row 1: claims 1 are of another source
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: claims 1 are of another source
      and 5 more
    INSERT INTO px_claim VALUES (77, 'users', NULL, 1, NULL, NULL)
      claims: the claim of step 'users' is of source 77, which is not there
    INSERT INTO px_digest VALUES (1, 0, zeroblob(65536))
      digests: 6 of 4096 digests of the entities of source 1 are not those of its records
    INSERT INTO px_digest VALUES (77, 7, x'00')
      digests: digests are of source 77, which is not there
      digests: digests of source 77 cannot be read
    DELETE FROM px_name WHERE name = 'thing'
      entities: entity 1a0fd659920e679223fd0a02db886ddd, row 1: its type, name 1, is not there
      entities: entity 24976667cb87ffaebab208bb0724358f, row 2: its type, name 1, is not there
      entities: entity 59ea38ae47a253e5fff241646cbeb1f4, row 3: its type, name 1, is not there
      and 8 more
    INSERT INTO px_changeset VALUES (7, 1, 1, 'too many', 1, 0, 'open', NULL, NULL)
      changesets: changeset 7 is open and holds nothing
    INSERT INTO px_changeset VALUES (7, 77, 1, 'too many', 1, 0, 'done', NULL, NULL)
      changesets: changeset 7 is of source 77, which is not there
      changesets: changeset 7 has no known state: 'done'
    UPDATE px_change SET action = 'lost' WHERE change = 1
      history: change 1: it is no known action: 'lost'
    UPDATE px_change SET properties = '' WHERE change = 1
      history: change 1: its properties are not JSON
      history: relationship c5aae69b7aa87341da9867f7ac6683e4, change 1: it is not what was stored
    UPDATE px_change SET properties = '{}'
      history: entity 9cd126f5744011253345cb8eaa7b6b2e, change 2, key "5": it is not what was stored
      history: entity aa9118a52ba9582678ec63a69c7ecbaa, change 3, key "0": it is not what was stored
      history: relationship c5aae69b7aa87341da9867f7ac6683e4, change 1: it is not what was stored
    UPDATE px_change SET key = cast(key AS BLOB) WHERE kind = 0
      history: entity of change 2: it cannot be read: Invalid type
      history: entity of change 3: it cannot be read: Invalid type
    UPDATE px_change SET kind = 7 WHERE change = 1
      history: change 1: it is of no known kind: 7
    UPDATE px_change SET claims = 77 WHERE change = 1
      history: change 1: claims 77 are not there
    UPDATE px_change SET to_id = NULL WHERE kind = 1
      history: change 1: it is of a relationship without two ends
      history: relationship of change 1: it cannot be read: Invalid column type Null at index: 6, name: to_id
    UPDATE px_journal SET first_seq = -9223372036854775808 WHERE chunk = 1
      journals: chunk 1 of a journal has more or fewer entries than it says
    DELETE FROM px_meta WHERE key = 'store_id'
      settings: setting store_id is not there or not what it should be
    DROP INDEX px_entity_type
      tables: index px_entity_type is not there
    DROP VIEW parallax_entity
      tables: view parallax_entity is not there
    DROP TABLE px_edge_to
      tables: table px_edge_to is not there
      edges: no such table: px_edge_to
      edges: no such table: px_edge_to
      and 3 more
    "#);
}

/// Emits so many things, each with one that follows it, that the store keeps digests of them. Some
/// are emitted twice, and some of these otherwise.
struct Many(std::ops::Range<u32>);

impl Connector for Many {
    fn name(&self) -> &str {
        "many"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![connect::step("things", "Things", |ctx| self.things(ctx))]
    }
}

impl Many {
    async fn things(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        let thing = |key, start| entity("thing", key).property("start", start);
        for key in self.0.clone() {
            ctx.emit(thing(key, self.0.start < 5 || key > 60))?;
            ctx.emit(relationship(("thing", key), "NEXT", ("thing", key + 1)))?;
        }
        for key in self.0.clone().step_by(9_000) {
            ctx.emit(relationship(("thing", key), "NEXT", ("thing", key + 1)))?;
            ctx.emit(thing(key, self.0.start < 5 || key > 60))?;
            ctx.emit(thing(key, false)).ok();
        }
        Ok(())
    }
}

#[tokio::test]
async fn digests_of_a_large_source_are_those_of_its_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parallax.db");
    let store = Store::open(&url(&path)).await.unwrap();
    // The second creates 20, deletes 10 and updates 51. The third would delete two fifths, and holds
    // them.
    for (sync_id, keys) in [
        ("s-1", 0..50_100),
        ("s-2", 10..50_120),
        ("s-3", 20_000..50_120),
    ] {
        let output = run_connector(&Many(keys), "1", sync_id, None)
            .await
            .unwrap();
        let result = store.commit_sync(&output).await.unwrap();
        // Of what was emitted twice more is settled when the store has digests.
        let again = store.commit_sync(&output).await.unwrap();
        assert_eq!((again.replayed, again.stats), (true, result.stats));
        let verification = store.verify().await.unwrap();
        assert_eq!(problems(&verification), "");
        let digests = verification
            .checks
            .iter()
            .find(|check| check.name == "digests");
        assert_eq!(digests.map(|check| check.checked), Some(2));
    }
    drop(store);
    let file = rusqlite::Connection::open(&path).unwrap();
    let held = "SELECT count(*) FROM px_entity WHERE held > 0";
    let held: u32 = file.query_row(held, [], |row| row.get(0)).unwrap();
    assert_eq!(held, 19_990);
    // What would hide changes of some records from each later sync.
    let sql = "UPDATE px_entity SET hash = zeroblob(16) WHERE n % 15000 = 7 AND held IS NULL;
               UPDATE px_relationship SET hash = zeroblob(16) WHERE n = 40000";
    file.execute_batch(sql).unwrap();
    insta::assert_snapshot!(
        problems(&verify(&path).await),
        @r"
    digests: 4 of 4096 digests of the entities of source 1 are not those of its records
    digests: 1 of 4096 digests of the relationships of source 1 are not those of its records
    "
    );
}

/// What a disk does: it changes bytes. Whichever they are, nothing panics, and what is said of a
/// file that reads differently is not that it is sound.
#[tokio::test]
async fn changed_byte_is_found_or_changes_nothing() {
    let (_directory, path) = stored().await;
    let whole = fs::read(&path).unwrap();
    let dump = |path: &Path| -> Option<Vec<String>> {
        let file = rusqlite::Connection::open(path).ok()?;
        let mut lines = Vec::new();
        for table in [
            "px_entity",
            "px_relationship",
            "px_source",
            "px_claims",
            "px_name",
        ] {
            let mut statement = file.prepare(&format!("SELECT * FROM {table}")).ok()?;
            let columns = statement.column_count();
            let mut rows = statement.query([]).ok()?;
            while let Some(row) = rows.next().ok()? {
                let cells = (0..columns).map(|column| format!("{:?}", row.get_ref(column)));
                lines.push(cells.collect::<Vec<_>>().join(" "));
            }
        }
        Some(lines)
    };
    let before = dump(&path);
    let mut found = 0;
    for place in (0..whole.len()).step_by(3989) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x01;
        fs::write(&path, &damaged).unwrap();
        let sound = match Store::open_read_only(&url(&path)).await {
            Ok(store) => store.verify().await.is_ok_and(|found| found.is_sound()),
            Err(_) => false,
        };
        if sound {
            assert!(dump(&path) == before, "byte {place}");
        } else {
            found += 1;
        }
    }
    assert!(found > 0);
}
