//! What users query: the views, read-only.

use std::time::SystemTime;

use parallax_connect::{
    Connector, ConnectorError, Step, StepContext, Timestamp, entity, relationship, run_connector,
    step,
};
use parallax_store::Cell;

use crate::support::{lines, memory};

struct Team;

impl Connector for Team {
    fn name(&self) -> &str {
        "team"
    }

    fn version(&self) -> &str {
        "1.2"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("all", "Everything", |ctx| self.all(ctx))]
    }
}

impl Team {
    async fn all(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        let at: Timestamp = "2026-11-22T11:15:42Z".parse().unwrap();
        let ann = entity("team_user", "ann")
            .class("User")
            .display_name("Ann \"Q\" O'Neil")
            .property("admin", true)
            .property("big", u64::MAX)
            .property("blob", parallax_connect::Value::Bytes(vec![0, 255]))
            .property("nothing", None::<bool>)
            .property("ratio", 0.5)
            .property("since", at)
            .property("tags", vec!["a", "b"]);
        ctx.emit(relationship(&ann, "MEMBER_OF", ("team_group", 7)).property("role", "lead"))?;
        ctx.emit(ann)?;
        ctx.emit(entity("team_group", 7))?;
        Ok(())
    }
}

#[tokio::test]
async fn views_show_what_was_emitted() {
    let store = memory().await;
    let before = SystemTime::now();
    let output = run_connector(&Team, "acme", "s-1", None).await.unwrap();
    store.commit_sync(&output).await.unwrap();

    insta::assert_snapshot!(
        lines(&store, "SELECT connector_id, account_id, type, class, key, display_name, properties, \
                       claims, created_sync_id FROM parallax_entity ORDER BY type DESC")
            .await
            .join("\n---\n"),
        @r#"
        team acme team_user User ann Ann "Q" O'Neil {"admin":true,"big":18446744073709551615,"blob":"00ff","nothing":null,"ratio":0.5,"since":"2026-11-22T11:15:42Z","tags":["a","b"]} [["all",null]] s-1
        ---
        team acme team_group - 7 7 {} [["all",null]] s-1
        "#
    );
    insta::assert_snapshot!(
        lines(&store, "SELECT u.key, r.verb, g.key, r.properties FROM parallax_relationship r \
                       JOIN parallax_entity u ON u.id = r.from_id \
                       JOIN parallax_entity g ON g.id = r.to_id")
            .await
            .join("\n"),
        @r#"ann MEMBER_OF 7 {"role":"lead"}"#
    );
    insta::assert_snapshot!(
        lines(&store, "SELECT connector_id, account_id, sync_id, connector_version, outcome, \
                       entities_created, relationships_created FROM parallax_sync")
            .await
            .join("\n"),
        @"team acme s-1 1.2 committed 2 1"
    );
    insta::assert_snapshot!(
        lines(&store, "SELECT connector_id, account_id, entities, relationships, syncs, \
                       last_sync_id, last_outcome FROM parallax_source").await.join("\n"),
        @"team acme 2 1 1 s-1 committed"
    );
    insta::assert_snapshot!(
        lines(&store, "SELECT step_id, status, entities, relationships, reason \
                       FROM parallax_sync_step").await.join("\n"),
        @"all completed 2 1 -"
    );
    let started = lines(&store, "SELECT started_at FROM parallax_sync")
        .await
        .remove(0);
    let started: Timestamp = started.parse().unwrap();
    assert!(started.as_micros() + 1_000 >= Timestamp::try_from(before).unwrap().as_micros());
}

#[tokio::test]
async fn result_counts_by_type_and_names_the_changes() {
    use crate::support::{keys, script, step, sync};
    use parallax_tests::Rec;
    let store = memory().await;
    let link = Rec::Link {
        from: 1,
        to: 2,
        value: 0,
    };
    let first = script([step("a", [keys([1, 2]), vec![link]].concat())]);
    sync(&store, &first, "1").await;
    let changed = Rec::Entity { key: 1, value: 1 };
    let result = sync(&store, &script([step("a", [changed, keys([3])[0]])]), "1").await;

    let types: Vec<_> = result
        .types
        .iter()
        .map(|t| {
            let c = t.counts;
            format!(
                "{} {} +{} ~{} ={} -{}",
                t.kind, t.name, c.created, c.updated, c.unchanged, c.deleted
            )
        })
        .collect();
    assert_eq!(
        types,
        ["entity thing +1 ~1 =0 -1", "relationship KNOWS +0 ~0 =0 -1"]
    );
    let changes: Vec<_> = result
        .changes
        .iter()
        .map(|c| format!("{} {} {}", c.action.as_str(), c.name, c.key))
        .collect();
    assert_eq!(
        changes,
        [
            "deleted thing 2",
            "updated thing 1",
            "created thing 3",
            "deleted KNOWS thing:1 -> thing:2",
        ]
    );
}

#[tokio::test]
async fn changes_keep_what_was_before() {
    use crate::support::{keys, script, step, sync};
    use parallax_tests::Rec;
    let store = memory().await;
    sync(&store, &script([step("a", keys([1, 2]))]), "1").await;
    sync(
        &store,
        &script([step("a", [Rec::Entity { key: 1, value: 1 }])]),
        "1",
    )
    .await;
    let sql = "SELECT action, kind, type, key, properties_before FROM parallax_change ORDER BY key";
    assert_eq!(
        lines(&store, sql).await,
        [
            r#"updated entity thing 1 {"value":0}"#,
            r#"deleted entity thing 2 {"value":0}"#
        ]
    );
}

#[tokio::test]
async fn queries_only_read() {
    let store = memory().await;
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.db");
    for sql in [
        "DELETE FROM px_entity",
        "UPDATE px_source SET connector_id = 'x'",
        "DROP TABLE px_entity",
        "PRAGMA user_version = 9",
        "BEGIN",
        "VACUUM",
        &format!("ATTACH '{}' AS other", other.display()),
        &format!("VACUUM INTO '{}'", other.display()),
        "SELECT 1; SELECT 2",
        "SELECT nope",
        "SELEC 1",
        "",
    ] {
        let error = store.query(sql).await.unwrap_err();
        assert_eq!(error.code(), "query_failed", "{sql}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    assert!(!other.exists());
    assert_eq!(
        lines(&store, "WITH x(n) AS (SELECT 1) SELECT n FROM x").await,
        ["1"]
    );
    assert_eq!(
        lines(&store, "SELECT count(*) FROM parallax_entity").await,
        ["0"]
    );
}

/// With a thousand sources, all that is read of one for each of them is read a thousand times.
#[tokio::test]
async fn sources_are_listed_without_reading_what_they_hold() {
    let store = memory().await;
    let plan = store
        .query("EXPLAIN QUERY PLAN SELECT * FROM parallax_source")
        .await
        .unwrap();
    let line = |row: &Vec<Cell>| match row.last() {
        Some(Cell::Text(line)) => line.clone(),
        other => panic!("{other:?}"),
    };
    let lines: Vec<_> = plan.rows.iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    SCAN s
    SEARCH l USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN
    SEARCH u USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN
    SEARCH c USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN
    CORRELATED SCALAR SUBQUERY 3
    SEARCH e USING COVERING INDEX px_entity_held (source_id=? AND held>?)
    CORRELATED SCALAR SUBQUERY 4
    SEARCH r USING COVERING INDEX px_relationship_held (source_id=? AND held>?)
    CORRELATED SCALAR SUBQUERY 5
    MATERIALIZE waiting
    SCAN w USING COVERING INDEX px_waiting_missing
    SEARCH r USING INTEGER PRIMARY KEY (rowid=?)
    USE TEMP B-TREE FOR GROUP BY
    USE TEMP B-TREE FOR count(DISTINCT)
    BLOOM FILTER ON w (source_id=?)
    SEARCH w USING AUTOMATIC COVERING INDEX (source_id=?)
    CORRELATED SCALAR SUBQUERY 7
    SEARCH y USING COVERING INDEX px_sync_source (source_id=?)
    ");
}
