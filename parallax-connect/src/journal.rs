use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use parallax_core::{Escaped, JournalEntry, JournalKind, JournalSink, Timestamp};

use crate::context::RunNames;

/// Numbers and dates what is told of one run.
pub(crate) struct Journal {
    names: RunNames,
    sink: Option<Arc<dyn JournalSink>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// The number of the last entry.
    seq: u64,
    /// Whether that entry ended the run, or nobody takes another.
    is_over: bool,
}

impl Journal {
    pub(crate) fn new(names: RunNames, sink: Option<Arc<dyn JournalSink>>) -> Self {
        Self {
            names,
            sink,
            told: Mutex::default(),
        }
    }

    /// Appends an entry, unless the run is over or nobody keeps its journal.
    pub(crate) fn append(&self, kind: impl FnOnce() -> JournalKind) {
        let Some(sink) = &self.sink else { return };
        // Held until the sink has the entry: a watchdog tells of the run from another thread.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_over {
            return;
        }
        let kind = kind();
        told.is_over = kind.ends_run();
        told.seq += 1;
        let entry = JournalEntry {
            seq: told.seq,
            at: now(),
            connector_id: Arc::clone(&self.names.connector_id),
            account_id: Arc::clone(&self.names.account_id),
            sync_id: Arc::clone(&self.names.sync_id),
            kind,
        };
        // Whoever watches cannot end a run; and where a run unwinds, a second panic would end the
        // process.
        if catch_unwind(AssertUnwindSafe(|| sink.append(&entry))).is_err() {
            told.is_over = true;
            tracing::error!(
                connector_id = %entry.connector_id,
                sync_id = %Escaped(&entry.sync_id),
                seq = entry.seq,
                "Journal given up: what takes it panicked"
            );
        }
    }

    /// Returns the number of the last entry, 0 before the first.
    pub(crate) fn last_seq(&self) -> u64 {
        let told = self.told.lock();
        told.unwrap_or_else(PoisonError::into_inner).seq
    }
}

fn now() -> Timestamp {
    // A clock beyond the year 9999 tells nothing.
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}
