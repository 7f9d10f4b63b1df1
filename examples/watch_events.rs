//! Watches a sync's events as they happen.
#![allow(clippy::print_stdout, reason = "what the example is for")]

mod library;

use parallax_connect::{RunError, SyncEvent, run_connector};
use tokio::sync::mpsc;

use crate::library::Library;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    let (events, mut told) = mpsc::channel(16);
    let watcher = tokio::spawn(async move {
        // No `_` arm: there are these five, and a sixth would be a new major version.
        while let Some(event) = told.recv().await {
            match event {
                SyncEvent::Started {
                    connector_id,
                    sync_id,
                } => {
                    println!("{connector_id}: {sync_id} started");
                }
                SyncEvent::StepStarted { step_id } => println!("  {step_id} ..."),
                SyncEvent::StepCompleted {
                    step_id,
                    entities,
                    relationships,
                    ..
                } => {
                    println!("  {step_id}: {entities} entities, {relationships} relationships");
                }
                SyncEvent::StepFailed { step_id, error } => println!("  {step_id}: {error}"),
                SyncEvent::Completed {
                    connector_id,
                    sync_id,
                } => {
                    println!("{connector_id}: {sync_id} completed");
                }
            }
        }
    });

    let output = run_connector(&Library, "main-street", "monday", Some(&events)).await?;
    drop(events);
    watcher.await.ok();

    println!(
        "{} events were not taken in time",
        output.undelivered_events()
    );
    Ok(())
}
