use std::future::ready;

use parallax_connect::{Connector, RunError, Runner, SyncReport};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

/// Checks that a run can start, and returns its steps as they are before it: their titles and
/// what they depend on.
///
/// It is a run that is cancelled before its first step begins. So it finds what a run would find
/// wrong with the names and the graph, but before a store is made for it; and it logs nothing,
/// because nothing happens.
pub(crate) async fn outline(
    connector: &dyn Connector,
    account_id: &str,
    sync_id: &str,
) -> Result<SyncReport, RunError> {
    let runner = Runner::new(connector).cancel_on(ready(()));
    let run = runner
        .run(account_id, sync_id)
        .with_subscriber(NoSubscriber::default());
    match run.await {
        Err(RunError::Cancelled { report }) => Ok(*report),
        Err(error) => Err(error),
        // Of a run that ended before it could be cancelled, the report has the steps as well.
        Ok(output) => Ok(output.report().clone()),
    }
}

#[cfg(test)]
mod tests {
    use parallax_connect::{Step, step};

    use super::*;

    struct Untouchable;

    impl Connector for Untouchable {
        fn name(&self) -> &str {
            "untouchable"
        }

        fn steps(&self) -> Vec<Step<'_>> {
            vec![
                step("a", "Collect a", async |_| panic!("was touched")),
                step("b", "Collect b", async |_| panic!("was touched")).depends_on(["a"]),
            ]
        }
    }

    #[tokio::test]
    async fn outline_starts_no_step() {
        let report = outline(&Untouchable, "acme", "s-1").await.unwrap();
        let steps: Vec<_> = report
            .steps()
            .iter()
            .map(|step| (&*step.step_id, step.status.as_str(), &*step.dependencies))
            .collect();
        assert_eq!(
            steps,
            [
                ("a", "cancelled", &[] as &[usize]),
                ("b", "cancelled", &[0])
            ]
        );
    }

    #[tokio::test]
    async fn outline_finds_what_a_run_would() {
        let error = outline(&Untouchable, "", "s-1").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "account \"\" is not 1 to 256 bytes without control characters"
        );
    }
}
