use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use parallax_core::{JournalEntry, JournalError, JournalKind, JournalSink, Run, Timestamp, escape};

use crate::error::CommitError;
use crate::result::CommitResult;

/// Names the journal of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JournalName {
    /// The connector.
    pub connector_id: String,
    /// The account that was read.
    pub account_id: String,
    /// The sync.
    pub sync_id: String,
}

/// A part of a stored journal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalPage {
    /// The entries in their order, each as [`JournalEntry::to_json`] wrote it. Not all that there
    /// are, if there are many; none if there are none from that number on, or not yet.
    pub lines: Vec<String>,
    /// The number from which to read on.
    pub next: u64,
    /// The number of the oldest entry that is still kept.
    pub first_kept: u64,
}

/// More bytes than this are not kept waiting, when the store cannot be written to.
const WAITING_BYTES: usize = 16 << 20;

/// What runs have told, on its way into a store.
#[derive(Debug, Default)]
pub(crate) struct JournalQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    chunks: Vec<Chunk>,
    bytes: usize,
    is_closed: bool,
}

/// Entries of one run that follow each other.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) of: Arc<JournalOf>,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    /// One object in each line, without a newline at the end.
    pub(crate) entries: String,
}

/// The run that a chunk is of.
#[derive(Debug)]
pub(crate) struct JournalOf {
    pub(crate) name: JournalName,
    /// A random number: a sync whose commit failed may be run again under the same id.
    pub(crate) run: i64,
}

impl JournalName {
    pub(crate) fn of(run: &Run) -> Self {
        Self {
            connector_id: run.connector_id.clone(),
            account_id: run.account_id.clone(),
            sync_id: run.sync_id.clone(),
        }
    }
}

impl JournalOf {
    pub(crate) fn new(name: JournalName) -> Arc<Self> {
        Arc::new(Self {
            name,
            run: RandomState::new().build_hasher().finish().cast_signed(),
        })
    }
}

impl Chunk {
    /// Makes one of entries that follow each other.
    pub(crate) fn of_entries(of: &Arc<JournalOf>, entries: &[JournalEntry]) -> Option<Self> {
        let lines: Vec<_> = entries.iter().map(JournalEntry::to_json).collect();
        Some(Self {
            of: Arc::clone(of),
            first_seq: entries.first()?.seq,
            last_seq: entries.last()?.seq,
            entries: lines.join("\n"),
        })
    }

    fn bytes(&self) -> usize {
        self.entries.len() + 1
    }
}

impl JournalQueue {
    fn push(&self, of: &Arc<JournalOf>, entry: &JournalEntry) {
        let line = entry.to_json();
        let mut waiting = self.lock();
        waiting.bytes += line.len() + 1;
        let chunks = &mut waiting.chunks;
        match chunks.iter_mut().rfind(|chunk| Arc::ptr_eq(&chunk.of, of)) {
            Some(chunk) if chunk.last_seq + 1 == entry.seq => {
                chunk.last_seq = entry.seq;
                chunk.entries.push('\n');
                chunk.entries.push_str(&line);
            }
            _ => chunks.push(Chunk {
                of: Arc::clone(of),
                first_seq: entry.seq,
                last_seq: entry.seq,
                entries: line,
            }),
        }
        if chunks.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Takes all that waits.
    pub(crate) fn take_all(&self) -> Vec<Chunk> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.chunks)
    }

    /// Takes what waits of some runs.
    fn take(&self, is_of: impl Fn(&Arc<JournalOf>) -> bool) -> Vec<Chunk> {
        let mut waiting = self.lock();
        let taken = waiting.chunks.extract_if(.., |chunk| is_of(&chunk.of));
        let taken: Vec<_> = taken.collect();
        waiting.bytes -= taken.iter().map(Chunk::bytes).sum::<usize>();
        taken
    }

    /// Puts back what could not be stored, before all that has come since. What is too much is
    /// lost, from the oldest on.
    pub(crate) fn put_back(&self, mut chunks: Vec<Chunk>) {
        let mut waiting = self.lock();
        waiting.bytes += chunks.iter().map(Chunk::bytes).sum::<usize>();
        chunks.append(&mut waiting.chunks);
        let mut lost = 0;
        while waiting.bytes > WAITING_BYTES && lost < chunks.len() {
            waiting.bytes -= chunks.get(lost).map_or(0, Chunk::bytes);
            lost += 1;
        }
        if lost > 0 {
            tracing::warn!(
                chunks = lost,
                "Journals lost: the store could not be written to"
            );
        }
        waiting.chunks = chunks.split_off(lost);
    }

    /// Blocks until there is something to store, and it had some time to gather. False once the
    /// queue is closed.
    pub(crate) fn wait(&self, gather: Duration) -> bool {
        let is_idle = |waiting: &mut Waiting| waiting.chunks.is_empty() && !waiting.is_closed;
        let waiting = self.changed.wait_while(self.lock(), is_idle);
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let gathered = self
            .changed
            .wait_timeout_while(waiting, gather, |waiting| !waiting.is_closed);
        let (waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        !waiting.is_closed
    }

    /// Wakes whoever waits, for the last time.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The journal of one session: keeps what its run tells, and passes it on to a watcher.
#[derive(Default)]
pub(crate) struct SessionJournal {
    /// `None` where nothing is written.
    queue: Option<Arc<JournalQueue>>,
    watcher: Option<Arc<dyn JournalSink>>,
    /// The run, once it has told something.
    of: Mutex<Option<Arc<JournalOf>>>,
}

impl SessionJournal {
    pub(crate) fn new(queue: Option<Arc<JournalQueue>>) -> Self {
        Self {
            queue,
            ..Self::default()
        }
    }

    /// Makes the journal of a session like this one, with a watcher.
    pub(crate) fn watched(&self, watcher: Arc<dyn JournalSink>) -> Self {
        Self {
            queue: self.queue.clone(),
            watcher: Some(watcher),
            ..Self::default()
        }
    }

    /// Returns the run that tells, if it has told something.
    pub(crate) fn of(&self) -> Option<Arc<JournalOf>> {
        lock(&self.of).clone()
    }

    /// Takes what a run has told and is not stored yet: the one that tells or, if it has told nothing
    /// here, those of the sync.
    pub(crate) fn take(&self, run: &Run) -> Vec<Chunk> {
        let of = self.of();
        let is_of = |other: &Arc<JournalOf>| match &of {
            Some(of) => Arc::ptr_eq(other, of),
            None => other.name == JournalName::of(run),
        };
        let queue = self.queue.as_ref();
        queue.map_or_else(Vec::new, |queue| queue.take(is_of))
    }

    pub(crate) fn put_back(&self, chunks: Vec<Chunk>) {
        if let Some(queue) = &self.queue {
            queue.put_back(chunks);
        }
    }

    /// Tells of a commit that has stored nothing: the same was committed before, or it failed.
    pub(crate) fn note_end(&self, run: &Run, result: &Result<CommitResult, CommitError>) {
        let entries = match result {
            Ok(result) if result.replayed => of_commit(run, run.journal_seq, result),
            // Its transaction has.
            Ok(_) => return,
            Err(error) => {
                let error = JournalError {
                    kind: error.code().to_owned(),
                    message: escape(&error.to_string()).into_owned(),
                };
                let seq = run.journal_seq + 1;
                vec![entry(run, seq, JournalKind::CommitFailed { error })]
            }
        };
        // Of a run that has told nothing there is no journal to end: a new one would hide that of
        // the run which was committed.
        if lock(&self.of).is_some() {
            entries.iter().for_each(|entry| self.append(entry));
        } else {
            self.show(&entries);
        }
    }

    /// Passes on what a commit has stored.
    pub(crate) fn show(&self, entries: &[JournalEntry]) {
        if let Some(watcher) = &self.watcher {
            for entry in entries {
                watcher.append(entry);
            }
        }
    }
}

impl JournalSink for SessionJournal {
    fn append(&self, entry: &JournalEntry) {
        if let Some(queue) = &self.queue {
            let mut of = lock(&self.of);
            let of = of.get_or_insert_with(|| {
                JournalOf::new(JournalName {
                    connector_id: entry.connector_id.to_string(),
                    account_id: entry.account_id.to_string(),
                    sync_id: entry.sync_id.to_string(),
                })
            });
            queue.push(of, entry);
        }
        self.show(std::slice::from_ref(entry));
    }
}

impl fmt::Debug for SessionJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionJournal").finish_non_exhaustive()
    }
}

/// Returns what a journal tells of a commit, after the entry numbered `last_seq`.
pub(crate) fn of_commit(run: &Run, last_seq: u64, result: &CommitResult) -> Vec<JournalEntry> {
    let committed = JournalKind::Committed {
        outcome: result.outcome.as_str().to_owned(),
        replayed: result.replayed,
        stats: result.stats,
    };
    let mut entries = vec![entry(run, last_seq + 1, committed)];
    if let (Some(changeset), false) = (result.held_changeset, result.replayed) {
        let held = JournalKind::DeletesHeld {
            changeset,
            entities: result.stats.entities_held,
            relationships: result.stats.relationships_held,
            reason: escape(result.held_because.as_deref().unwrap_or_default()).into_owned(),
        };
        entries.push(entry(run, last_seq + 2, held));
    }
    entries
}

fn entry(run: &Run, seq: u64, kind: JournalKind) -> JournalEntry {
    entry_now(
        [&run.connector_id, &run.account_id, &run.sync_id],
        seq,
        kind,
    )
}

/// Makes an entry of what happens now.
pub(crate) fn entry_now(
    [connector_id, account_id, sync_id]: [&String; 3],
    seq: u64,
    kind: JournalKind,
) -> JournalEntry {
    JournalEntry {
        seq,
        at: Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH),
        connector_id: connector_id.as_str().into(),
        account_id: account_id.as_str().into(),
        sync_id: sync_id.as_str().into(),
        kind,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
