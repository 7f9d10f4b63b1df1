use std::io;

use tokio::runtime::{self, Runtime};
use tokio::task::JoinHandle;

/// Threads for the connectors, apart from those that hear signals and answer scrapes: so a step
/// that blocks its thread holds up nothing but other syncs.
pub(super) struct Workers(Option<Runtime>);

impl Workers {
    pub(super) fn try_new() -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("parallax-sync")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn spawn(&self, syncs: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match &self.0 {
            Some(runtime) => runtime.spawn(syncs),
            None => tokio::spawn(syncs),
        }
    }
}

impl Drop for Workers {
    /// Waits for nothing: what has not ended until now ends with the process.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
