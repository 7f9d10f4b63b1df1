//! Runs a sync inside an existing trace: whatever a step logs is nested under it.

mod library;

use parallax_connect::{RunError, run_connector};
use tracing::Instrument;

use crate::library::Library;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_max_level(tracing::Level::DEBUG)
        .init();

    let nightly = tracing::info_span!("nightly", branch = "main-street");
    run_connector(&Library, "main-street", "monday", None)
        .instrument(nightly)
        .await?;
    Ok(())
}
