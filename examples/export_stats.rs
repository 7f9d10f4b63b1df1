//! Sends a commit's stats to a metrics system of one's own: here, StatsD lines.
#![allow(clippy::print_stdout, reason = "what the example is for")]

mod library;

use std::error::Error;

use parallax_connect::run_connector;
use parallax_core::SyncStats;
use parallax_store::Store;

use crate::library::Library;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Store::open("sqlite::memory:").await?;
    for sync_id in ["monday", "tuesday"] {
        let output = run_connector(&Library, "main-street", sync_id, None).await?;
        let result = store.commit_sync(&output).await?;
        // A replayed commit has been counted before.
        if !result.replayed {
            println!("{sync_id}, {}:", result.outcome.as_str());
            export(&result.stats);
        }
    }
    Ok(())
}

fn export(stats: &SyncStats) {
    for (field, value) in SyncStats::FIELDS.iter().zip(stats.values()) {
        if value > 0 {
            println!("  library.{field}:{value}|c");
        }
    }
}
