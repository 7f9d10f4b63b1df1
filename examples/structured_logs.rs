//! Logs a sync as JSON lines, as a log collector wants them.

mod library;

use parallax_connect::{RunError, run_connector};

use crate::library::Library;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    tracing_subscriber::fmt()
        .json()
        .with_target(false)
        .with_current_span(false)
        .init();

    run_connector(&Library, "main-street", "monday", None).await?;
    Ok(())
}
