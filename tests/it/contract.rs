//! The contract's code, as its page shows it: only the connector and the channel around it are
//! this test's own.

use std::sync::Arc;
use std::time::Duration;

use parallax_connect::{Connector, ConnectorError, Step, StepContext, entity, relationship, step};
use parallax_store::Store;
use tracing::Instrument;

struct Service;

impl Connector for Service {
    fn name(&self) -> &str {
        "my-service"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![
            step("users", "Collect users", |ctx| self.users(ctx)),
            step("roles", "Collect roles", |ctx| self.roles(ctx)).depends_on(["users"]),
        ]
    }
}

impl Service {
    async fn users(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        for name in ["ann", "bob"] {
            ctx.emit(entity("service_user", name))?;
        }
        ctx.emit(relationship(
            ("service_user", "ann"),
            "KNOWS",
            ("service_user", "bob"),
        ))?;
        Ok(())
    }

    async fn roles(&self, _ctx: StepContext) -> Result<(), ConnectorError> {
        Err(ConnectorError::RateLimited {
            service: "iam".to_owned(),
            // Longer than a run waits.
            retry_after: Duration::from_secs(3_600),
        })
    }
}

#[tokio::test]
async fn event_stream() -> Result<(), Box<dyn std::error::Error>> {
    let connector = Service;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();

    use parallax_connect::{SyncEvent, run_connector};
    use tokio::sync::mpsc;

    let (tx, mut rx) = mpsc::channel(100);

    // Spawn event consumer
    tokio::spawn(async move {
        while let Some(event) = rx.recv().await {
            told.send(format!("{event:?}")).unwrap();
            match event {
                SyncEvent::Started {
                    connector_id,
                    sync_id,
                } => {
                    tracing::info!(%connector_id, %sync_id, "Sync started");
                }
                SyncEvent::StepStarted { step_id } => {
                    tracing::info!(%step_id, "Step started");
                }
                SyncEvent::StepCompleted {
                    step_id,
                    entities,
                    relationships,
                    duration,
                } => {
                    tracing::info!(
                        %step_id,
                        entities_emitted = entities,
                        relationships_emitted = relationships,
                        duration_ms = duration.as_millis(),
                        "Step completed"
                    );
                    let _: (String, usize, usize, Duration) =
                        (step_id, entities, relationships, duration);
                }
                SyncEvent::StepFailed { step_id, error } => {
                    tracing::warn!(%step_id, %error, "Step failed");
                }
                SyncEvent::Completed {
                    connector_id,
                    sync_id,
                } => {
                    tracing::info!(%connector_id, %sync_id, "Sync completed");
                }
            }
        }
    });

    let output = run_connector(&connector, "account", "sync-001", Some(&tx)).await?;

    drop(tx);
    let mut events = Vec::new();
    while let Some(event) = heard.recv().await {
        events.push(
            event
                .split([' ', '{'])
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
    }
    let expected = [
        "Started",
        "StepStarted",
        "StepCompleted",
        "StepStarted",
        "StepFailed",
        "Completed",
    ];
    assert_eq!(events, expected);
    assert_eq!(output.entities().count(), 2);
    Ok(())
}

#[tokio::test]
async fn metrics_integration() -> Result<(), Box<dyn std::error::Error>> {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let output = parallax_connect::run_connector(&Service, "account", "sync-001", None).await?;
    let mut store = Store::open("sqlite::memory:").await?;
    let result = store.commit_sync_exclusive(&output)?;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();

    metrics::with_local_recorder(&recorder, || {
        let stats = result.stats;

        // Export to your metrics system
        metrics::counter!("parallax_entities_created_total").increment(stats.entities_created);
        metrics::counter!("parallax_entities_deleted_total").increment(stats.entities_deleted);
        metrics::counter!("parallax_relationships_created_total")
            .increment(stats.relationships_created);
    });

    let mut seen: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| (key.key().name().to_owned(), value))
        .collect();
    seen.sort_by(|(a, _), (b, _)| a.cmp(b));
    let expected = [
        ("parallax_entities_created_total", 2),
        ("parallax_entities_deleted_total", 0),
        ("parallax_relationships_created_total", 1),
    ];
    let expected = expected.map(|(name, count)| (name.to_owned(), DebugValue::Counter(count)));
    assert_eq!(seen, expected);
    Ok(())
}

#[tokio::test]
async fn context_propagation() -> Result<(), Box<dyn std::error::Error>> {
    use parallax_connect::run_connector;
    let connector = Service;

    let span = tracing::info_span!("sync_run", connector = "my-service");
    let output = async move { run_connector(&connector, "account", "sync-001", None).await }
        .instrument(span)
        .await?;

    assert_eq!(output.relationships().count(), 1);

    let connector: Arc<dyn Connector> = Arc::new(Service);
    let span = tracing::info_span!("sync_run", connector = "my-service");
    let spawned = tokio::spawn(
        async move { run_connector(&connector, "account", "sync-002", None).await }
            .instrument(span),
    );
    assert_eq!(spawned.await??.entities().count(), 2);
    Ok(())
}
