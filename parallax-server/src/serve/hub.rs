use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parallax_core::{JournalEntry, JournalSink};
use parallax_store::JournalName;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::json;

/// How many of the last entries of a sync that runs are at hand. Older ones are in the store, which
/// is never behind by as much.
const OF_A_SYNC: usize = 4_096;
/// How many of the last entries of all syncs are at hand.
const OF_ALL: usize = 8_192;
/// How often whoever follows is woken at most: what came meanwhile goes out in one piece.
const PULSE: Duration = Duration::from_millis(100);

/// The journals of the syncs that run, as they are told.
///
/// Whoever follows takes from here at its own pace, and nothing is kept for it: so any number may
/// follow, and none can hold up a sync.
#[derive(Debug)]
pub(super) struct Hub {
    kept: Mutex<Kept>,
    /// Something has come. The pulse passes it on.
    news: Notify,
    /// Counts the pulses; closed is the last word.
    pulse: watch::Sender<Pulse>,
    /// Tells this process's numbers from those of others.
    epoch: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pulse {
    beats: u64,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Kept {
    syncs: HashMap<JournalName, VecDeque<Line>>,
    all: VecDeque<News>,
    /// The number of the first of `all`.
    first: u64,
}

#[derive(Clone, Debug)]
struct Line {
    seq: u64,
    text: Arc<str>,
}

/// What whoever follows everything is told.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// An entry of a journal.
    Entry(Arc<str>),
    /// The records of a source were changed by something else than a sync.
    Changed(Arc<str>),
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// What would come next is no longer at hand.
    Lagged,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::new(Kept {
                first: 1,
                ..Kept::default()
            }),
            news: Notify::new(),
            pulse: watch::Sender::default(),
            epoch: uuid::Uuid::now_v7().as_u64_pair().0,
        }
    }

    /// Wakes whoever follows, as long as it is polled.
    pub(super) async fn beat(self: Arc<Self>) {
        loop {
            self.news.notified().await;
            self.pulse.send_modify(|pulse| pulse.beats += 1);
            sleep(PULSE).await;
        }
    }

    /// Tells whoever follows that nothing more comes.
    pub(super) fn close(&self) {
        self.pulse.send_modify(|pulse| pulse.is_closed = true);
    }

    /// Forgets the entries of a sync that has ended: the store has them.
    pub(super) fn ended(&self, name: &JournalName) {
        self.lock().syncs.remove(name);
        self.news.notify_one();
    }

    /// Says that the records of a source were changed by something else than a sync.
    pub(super) fn changed(&self, connector_id: &str, account_id: &str) {
        #[derive(Serialize)]
        struct Changed<'a> {
            connector_id: &'a str,
            account_id: &'a str,
        }
        let json = json::line(&Changed {
            connector_id,
            account_id,
        });
        self.lock().push(News::Changed(json.trim_end().into()));
        self.news.notify_one();
    }

    /// Names the syncs that run and whose id begins so.
    pub(super) fn running(&self, prefix: &str) -> Vec<JournalName> {
        let kept = self.lock();
        let names = kept.syncs.keys();
        names
            .filter(|name| name.sync_id.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Tells whether a sync runs.
    pub(super) fn is_running(&self, name: &JournalName) -> bool {
        self.lock().syncs.contains_key(name)
    }

    /// Returns entries of a sync from the one numbered `from` on, at most `limit`, each with its
    /// number. None if that one has not come, or is no longer at hand.
    pub(super) fn entries(
        &self,
        name: &JournalName,
        from: u64,
        limit: usize,
    ) -> Vec<(u64, Arc<str>)> {
        let kept = self.lock();
        let lines = kept.syncs.get(name);
        let place = lines.and_then(|lines| from.checked_sub(lines.front()?.seq));
        let place = place.and_then(|place| usize::try_from(place).ok());
        let (Some(lines), Some(place)) = (lines, place) else {
            return Vec::new();
        };
        // They follow each other without a gap.
        let lines = lines.iter().skip(place).take(limit);
        lines
            .map(|line| (line.seq, Arc::clone(&line.text)))
            .collect()
    }

    /// Returns what this process calls its numbers, and the number of what comes next.
    pub(super) fn now(&self) -> (u64, u64) {
        (self.epoch, self.lock().next())
    }

    /// Returns what has come of all from number `from` on, at most `limit`.
    pub(super) fn news(&self, from: u64, limit: usize) -> Result<Vec<News>, Behind> {
        let kept = self.lock();
        let place = from.checked_sub(kept.first).ok_or(Behind::Lagged)?;
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        Ok(kept.all.iter().skip(place).take(limit).cloned().collect())
    }

    /// Returns what tells when to look again.
    pub(super) fn follow(&self) -> Follower {
        Follower(self.pulse.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, news: News) {
        if self.all.len() == OF_ALL {
            self.all.pop_front();
            self.first += 1;
        }
        self.all.push_back(news);
    }

    fn next(&self) -> u64 {
        self.first + self.all.len() as u64
    }
}

impl JournalSink for Hub {
    fn append(&self, entry: &JournalEntry) {
        let text: Arc<str> = entry.to_json().into();
        let name = JournalName {
            connector_id: entry.connector_id.to_string(),
            account_id: entry.account_id.to_string(),
            sync_id: entry.sync_id.to_string(),
        };
        let mut kept = self.lock();
        let lines = kept.syncs.entry(name).or_default();
        if lines.len() == OF_A_SYNC {
            lines.pop_front();
        }
        // After a gap, what was before it is for the store to tell.
        if lines.back().is_some_and(|last| last.seq + 1 != entry.seq) {
            lines.clear();
        }
        lines.push_back(Line {
            seq: entry.seq,
            text: Arc::clone(&text),
        });
        kept.push(News::Entry(text));
        drop(kept);
        self.news.notify_one();
    }
}

/// Waits for the hub to have more.
#[derive(Debug)]
pub(super) struct Follower(watch::Receiver<Pulse>);

impl Follower {
    /// Waits until something has come since the last time. False once nothing more comes.
    ///
    /// What came between is not slept over, however long the caller was away to look.
    pub(super) async fn wait(&mut self) -> bool {
        if self.0.borrow().is_closed {
            return false;
        }
        let changed = self.0.changed().await;
        changed.is_ok() && !self.0.borrow().is_closed
    }

    /// Tells whether nothing more comes.
    pub(super) fn is_closed(&self) -> bool {
        self.0.borrow().is_closed
    }
}

#[cfg(test)]
mod tests {
    use parallax_core::{JournalKind, Timestamp};

    use super::*;

    fn entry(sync_id: &str, seq: u64) -> JournalEntry {
        JournalEntry {
            seq,
            at: Timestamp::from_micros(0).unwrap(),
            connector_id: "team".into(),
            account_id: "acme".into(),
            sync_id: sync_id.into(),
            kind: JournalKind::StepStarted {
                step_id: "users".to_owned(),
            },
        }
    }

    fn name(sync_id: &str) -> JournalName {
        JournalName {
            connector_id: "team".to_owned(),
            account_id: "acme".to_owned(),
            sync_id: sync_id.to_owned(),
        }
    }

    fn seqs(hub: &Hub, sync_id: &str, from: u64) -> Vec<u64> {
        let entries = hub.entries(&name(sync_id), from, 3);
        entries.into_iter().map(|(seq, _)| seq).collect()
    }

    #[test]
    fn last_entries_are_at_hand_and_never_with_a_gap() {
        let hub = Hub::new();
        for seq in 1..=OF_A_SYNC as u64 + 10 {
            hub.append(&entry("a", seq));
        }
        hub.append(&entry("b", 1));
        assert_eq!(seqs(&hub, "a", 1), [0u64; 0]);
        assert_eq!(seqs(&hub, "a", 10), [0u64; 0]);
        assert_eq!(seqs(&hub, "a", 11), [11, 12, 13]);
        assert_eq!(
            seqs(&hub, "a", OF_A_SYNC as u64 + 10),
            [OF_A_SYNC as u64 + 10]
        );
        assert_eq!(seqs(&hub, "a", OF_A_SYNC as u64 + 11), [0u64; 0]);
        assert_eq!(seqs(&hub, "b", 1), [1]);
        hub.append(&entry("b", 3));
        assert_eq!(seqs(&hub, "b", 1), [0u64; 0]);
        assert_eq!(seqs(&hub, "b", 3), [3]);
        assert_eq!(hub.running("a"), [name("a")]);
        hub.ended(&name("a"));
        assert!(!hub.is_running(&name("a")) && hub.is_running(&name("b")));
        assert_eq!(seqs(&hub, "a", 11), [0u64; 0]);
    }

    #[test]
    fn who_lags_behind_all_is_told() {
        let hub = Hub::new();
        let (_, begin) = hub.now();
        hub.changed("team", "acme");
        assert_eq!(hub.news(begin, 10).unwrap().len(), 1);
        for seq in 1..=OF_ALL as u64 {
            hub.append(&entry("a", seq));
        }
        assert_eq!(hub.news(begin, 10).unwrap_err(), Behind::Lagged);
        let (_, now) = hub.now();
        assert_eq!(hub.news(now - 1, 10).unwrap().len(), 1);
        assert_eq!(hub.news(now, 10).unwrap().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn follower_is_woken_by_what_came_while_it_looked() {
        let hub = Arc::new(Hub::new());
        let mut follower = hub.follow();
        let beating = tokio::spawn(Arc::clone(&hub).beat());
        // It has looked, and found nothing; then it is told of an entry before it waits.
        hub.append(&entry("a", 1));
        tokio::time::sleep(2 * PULSE).await;
        let woken = tokio::time::timeout(Duration::from_secs(1), follower.wait());
        assert_eq!(woken.await, Ok(true));
        beating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn followers_are_woken_once_for_what_came_together() {
        let hub = Arc::new(Hub::new());
        let mut follower = hub.follow();
        let beating = tokio::spawn(Arc::clone(&hub).beat());
        let begin = tokio::time::Instant::now();
        hub.append(&entry("a", 1));
        assert!(follower.wait().await);
        for seq in 2..1_000 {
            hub.append(&entry("a", seq));
        }
        assert!(follower.wait().await);
        assert_eq!(begin.elapsed(), PULSE);
        let idle = tokio::time::timeout(Duration::from_secs(60), follower.wait());
        assert!(idle.await.is_err());
        hub.close();
        assert!(!follower.wait().await && follower.is_closed());
        beating.abort();
    }
}
