use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::Batch;
use crate::error::ConnectorError;

/// Where emitted records go while a sync runs: the output in memory, or a store's session.
///
/// Called from inside the steps, and without being awaited: a sink that blocks holds up the run.
pub trait Sink: Send + Sync {
    /// Opens an attempt of the `step`-th declared step.
    fn open(&self, step: usize) -> Box<dyn Attempt>;
}

/// One attempt of one step: all of its records count, or none.
///
/// Dropping it without [`finish`](Self::finish) discards what was written: the step failed,
/// panicked or was cancelled.
pub trait Attempt: Send {
    /// Takes the next batch of the attempt.
    ///
    /// # Errors
    ///
    /// An error fails the step, whatever the step does; nothing more is written then.
    fn write(&mut self, batch: Arc<Batch>) -> Result<(), ConnectorError>;

    /// Accepts the attempt.
    ///
    /// # Errors
    ///
    /// An error fails the step; nothing of the attempt counts then.
    fn finish(self: Box<Self>) -> Result<(), ConnectorError>;
}

/// Keeps the accepted batches in memory, by step.
#[derive(Debug, Default)]
pub struct MemorySink {
    steps: Arc<Mutex<Vec<Vec<Arc<Batch>>>>>,
}

impl MemorySink {
    /// Takes the accepted batches: one list per step in the order of their declaration, up to the
    /// last step that has any.
    pub fn take(&self) -> Vec<Vec<Arc<Batch>>> {
        std::mem::take(&mut *self.steps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for MemorySink {
    fn open(&self, step: usize) -> Box<dyn Attempt> {
        Box::new(MemoryAttempt {
            steps: Arc::clone(&self.steps),
            step,
            batches: Vec::new(),
        })
    }
}

struct MemoryAttempt {
    steps: Arc<Mutex<Vec<Vec<Arc<Batch>>>>>,
    step: usize,
    batches: Vec<Arc<Batch>>,
}

impl Attempt for MemoryAttempt {
    fn write(&mut self, batch: Arc<Batch>) -> Result<(), ConnectorError> {
        self.batches.push(batch);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), ConnectorError> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() <= self.step {
            steps.resize_with(self.step + 1, Vec::new);
        }
        if let Some(step) = steps.get_mut(self.step) {
            *step = self.batches;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, entity};

    #[test]
    fn only_finished_attempts_are_kept() {
        fn batch(key: &str) -> Arc<Batch> {
            let mut builder = BatchBuilder::new("acme".into());
            builder.push(&mut entity("host", key).into(), None).unwrap();
            builder.take().unwrap()
        }
        let sink = MemorySink::default();
        let mut second = sink.open(1);
        let mut first = sink.open(0);
        second.write(batch("b")).unwrap();
        first.write(batch("a")).unwrap();
        second.write(batch("c")).unwrap();
        second.finish().unwrap();
        drop(first);
        let mut retried = sink.open(0);
        retried.write(batch("d")).unwrap();
        retried.finish().unwrap();

        let keys = |steps: Vec<Vec<Arc<Batch>>>| -> Vec<String> {
            let keys = |step: &Vec<Arc<Batch>>| {
                let hosts = step.iter().flat_map(|batch| batch.entities());
                hosts.map(|host| host.key()).collect()
            };
            steps.iter().map(keys).collect()
        };
        assert_eq!(keys(sink.take()), ["d", "bc"]);
        assert_eq!(keys(sink.take()), Vec::<String>::new());
    }
}
