use std::panic::resume_unwind;

use parallax_connect::ConnectorError;
use tracing::{Dispatch, Span, dispatcher};

/// Runs what blocks, such as reading files, beside the steps instead of between them.
///
/// It runs in the caller's span, logs to the caller's subscriber, and panics as the caller's panic.
pub(crate) async fn blocking(
    work: impl FnOnce() -> Result<(), ConnectorError> + Send + 'static,
) -> Result<(), ConnectorError> {
    let span = Span::current();
    // A subscriber may be set for the caller's thread only.
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let work = move || dispatcher::with_default(&dispatch, || span.in_scope(work));
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| match error.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(_) => Err(ConnectorError::Cancelled),
        })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing::Instrument;

    use super::*;

    #[tokio::test]
    async fn work_runs_in_the_span_of_the_caller() {
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry());
        let span = tracing::info_span!("step");
        let id = span.id();
        assert!(id.is_some());
        let (tx, rx) = mpsc::channel();
        let work = move || {
            tx.send(Span::current().id()).unwrap();
            Ok(())
        };
        blocking(work).instrument(span).await.unwrap();
        assert_eq!(rx.recv().unwrap(), id);
    }

    #[tokio::test]
    #[should_panic(expected = "in the work")]
    async fn panic_reaches_the_caller() {
        blocking(|| panic!("in the work")).await.ok();
    }
}
