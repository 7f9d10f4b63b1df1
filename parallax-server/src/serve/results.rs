use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use parallax_scheduler::Notice;

use crate::conclusion::Conclusion;
use crate::json;
use crate::remote_sync::cancelled_there;

/// How many are kept: whoever asked for a sync asks for this at once.
const KEPT: usize = 64;
/// How long they may be together. The last one is kept in any case.
const BYTES: usize = 16 << 20;

/// What the last syncs came to, in the words of `parallax sync --json`.
#[derive(Debug)]
pub(super) struct Results {
    /// The store's URL.
    store: String,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// When each sync that runs has begun.
    begun: HashMap<String, Instant>,
    /// Of each sync the JSON object, the oldest first.
    ended: VecDeque<(String, Arc<str>)>,
}

impl Results {
    pub(super) fn new(store: &str) -> Self {
        Self {
            store: store.to_owned(),
            kept: Mutex::default(),
        }
    }

    /// Keeps what a notice tells.
    pub(super) fn note(&self, notice: &Notice<'_>) {
        match notice {
            Notice::Started { sync_id, .. } => {
                let begun = (*sync_id).to_owned();
                self.lock().begun.insert(begun, Instant::now());
            }
            Notice::Ended {
                job,
                sync_id,
                result,
            } => {
                let begun = self.lock().begun.remove(*sync_id);
                let mut conclusion = Conclusion {
                    connector_id: Some(job.connector_id().to_owned()),
                    account_id: Some(job.account_id().to_owned()),
                    sync_id: Some((*sync_id).to_owned()),
                    duration: begun.map(|begun| begun.elapsed()).unwrap_or_default(),
                    store: Some(self.store.clone()),
                    store_exists: true,
                    ..Conclusion::default()
                };
                let ended = match result {
                    Ok(synced) => Ok((&synced.output, synced.result.clone())),
                    Err(error) => Err(error),
                };
                conclusion.failure = conclusion.ended(ended, cancelled_there).err();
                let json = json::render(&conclusion);
                let mut kept = self.lock();
                kept.ended.push_back(((*sync_id).to_owned(), json.into()));
                let bytes =
                    |kept: &Kept| -> usize { kept.ended.iter().map(|(_, json)| json.len()).sum() };
                while kept.ended.len() > KEPT || (kept.ended.len() > 1 && bytes(&kept) > BYTES) {
                    kept.ended.pop_front();
                }
            }
            _ => {}
        }
    }

    /// Returns what a sync came to, if that is kept.
    pub(super) fn of(&self, sync_id: &str) -> Option<Arc<str>> {
        let kept = self.lock();
        let found = kept.ended.iter().find(|(ended, _)| ended == sync_id);
        found.map(|(_, json)| Arc::clone(json))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
