use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parallax_core::{Escaped, JournalEntry, JournalKind};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::StoreError;
use crate::findings::Findings;
use crate::journal::{Chunk, JournalName, JournalOf, JournalPage, entry_now, of_commit};
use crate::result::CommitResult;
use crate::sqlite::Files;
use crate::sqlite::write::now;

/// How much is kept of the journals of all sources.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    bytes: i64,
    /// In microseconds.
    age: i64,
}

pub(super) const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    age: 30 * 24 * 60 * 60 * 1_000_000,
};

/// How long entries wait to be stored with others.
const GATHER: Duration = Duration::from_millis(500);
const GATHER_AFTER_ERROR: Duration = Duration::from_secs(10);
/// Between two commits the log grows by some pages with each write.
const WRITES_PER_CHECKPOINT: u32 = 64;
/// A page of a journal ends after the chunk that reaches this.
const PAGE_BYTES: usize = 1 << 20;

/// Stores what is in the queue, half a second after it came, on a thread that ends with the queue.
pub(super) fn begin_storing(files: &Arc<Files>) {
    let (files, queue) = (Arc::downgrade(files), Arc::clone(&files.journal));
    let store = move || {
        let mut gather = GATHER;
        let mut writes = 0_u32;
        while queue.wait(gather)
            && let Some(files) = Weak::upgrade(&files)
        {
            gather = match files.store_journal() {
                Ok(()) => GATHER,
                Err(error) => {
                    tracing::warn!(
                        code = error.code(),
                        error = %Escaped(&error),
                        "Journal not stored"
                    );
                    GATHER_AFTER_ERROR
                }
            };
            writes += 1;
            if writes.is_multiple_of(WRITES_PER_CHECKPOINT) {
                files.write(|opened| opened.checkpoint()).ok();
            }
        }
    };
    let thread = thread::Builder::new().name("parallax-journal".to_owned());
    if let Err(error) = thread.spawn(store) {
        // Each commit stores the journal of its run in any case.
        tracing::warn!(%error, "Journals are stored with commits only");
    }
}

/// Stores chunks as they came.
pub(super) fn write(transaction: &Transaction<'_>, chunks: &[Chunk]) -> Result<(), StoreError> {
    for chunk in chunks {
        insert(transaction, chunk)?;
    }
    retain(transaction, LIMITS)
}

/// Stores what the run of a commit has told, and returns what there is to tell of the commit.
pub(super) fn write_commit(
    transaction: &Transaction<'_>,
    findings: &Findings,
    chunks: &[Chunk],
    result: &CommitResult,
) -> Result<Vec<JournalEntry>, StoreError> {
    let run = findings.output.run();
    for chunk in chunks {
        insert(transaction, chunk)?;
    }
    let (of, last_seq) = match findings.journal.of() {
        Some(of) => (of, run.journal_seq),
        None => {
            // Told to a session whose commit failed, most likely: the last word goes there.
            let name = JournalName::of(run);
            let last = find_last(transaction, &name)?;
            match last.filter(|(_, last)| run.journal_seq > 0 && *last >= run.journal_seq) {
                Some((run, last)) => (Arc::new(JournalOf { name, run }), last),
                None => (JournalOf::new(name), run.journal_seq),
            }
        }
    };
    let entries = of_commit(run, last_seq, result);
    let chunk = Chunk::of_entries(&of, &entries);
    write(transaction, chunk.as_slice())?;
    Ok(entries)
}

/// Stores what became of the deletes that a sync had held, if its journal is still kept.
pub(super) fn write_word(
    transaction: &Transaction<'_>,
    name: JournalName,
    kind: JournalKind,
) -> Result<(), StoreError> {
    let last = find_last(transaction, &name)?;
    let Some((run, last_seq)) = last else {
        return Ok(());
    };
    let ids = [&name.connector_id, &name.account_id, &name.sync_id];
    let entry = entry_now(ids, last_seq + 1, kind);
    let of = Arc::new(JournalOf { name, run });
    Chunk::of_entries(&of, &[entry]).map_or(Ok(()), |chunk| write(transaction, &[chunk]))
}

/// Finds the run that told last of a sync, and the number of its last entry.
fn find_last(
    transaction: &Transaction<'_>,
    name: &JournalName,
) -> Result<Option<(i64, u64)>, StoreError> {
    let last = transaction
        .prepare_cached(
            "SELECT run, last_seq FROM px_journal
             WHERE sync_id = ?1 AND connector_id = ?2 AND account_id = ?3
             ORDER BY chunk DESC LIMIT 1",
        )?
        .query_row(
            [&name.sync_id, &name.connector_id, &name.account_id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(last)
}

fn insert(transaction: &Transaction<'_>, chunk: &Chunk) -> Result<(), StoreError> {
    let number: i64 = transaction
        .prepare_cached("SELECT ifnull(max(chunk), 0) + 1 FROM px_journal")?
        .query_row([], |row| row.get(0))?;
    let name = &chunk.of.name;
    transaction
        .prepare_cached(
            "INSERT INTO px_journal (chunk, run, connector_id, account_id, sync_id, first_seq,
                 last_seq, written_at, entries, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            number,
            chunk.of.run,
            name.connector_id,
            name.account_id,
            name.sync_id,
            chunk.first_seq,
            chunk.last_seq,
            now(),
            chunk.entries,
            checksum(&chunk.entries),
        ])?;
    transaction
        .prepare_cached("UPDATE px_meta SET value = value + ?1 WHERE key = 'journal_bytes'")?
        .execute([chunk.entries.len()])?;
    Ok(())
}

/// Forgets the oldest entries, if there are more than are kept, but for the newest chunk.
fn retain(transaction: &Transaction<'_>, limits: Limits) -> Result<(), StoreError> {
    loop {
        let oldest = transaction
            .prepare_cached(
                "SELECT chunk, length(CAST(entries AS BLOB)) FROM px_journal
                 WHERE chunk = (SELECT min(chunk) FROM px_journal)
                     AND chunk < (SELECT max(chunk) FROM px_journal)
                     AND (written_at < ?1
                         OR (SELECT value FROM px_meta WHERE key = 'journal_bytes') > ?2)",
            )?
            .query_row([now() - limits.age, limits.bytes], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((chunk, bytes)) = oldest else {
            return Ok(());
        };
        transaction
            .prepare_cached("DELETE FROM px_journal WHERE chunk = ?1")?
            .execute([chunk])?;
        transaction
            .prepare_cached("UPDATE px_meta SET value = value - ?1 WHERE key = 'journal_bytes'")?
            .execute([bytes])?;
    }
}

/// Names the journals of which a sync id begins so, newest first.
pub(super) fn find(
    connection: &Connection,
    prefix: &str,
    limit: u32,
) -> Result<Vec<JournalName>, StoreError> {
    // What begins so lies between it and it with the last of all characters behind.
    let mut statement = connection.prepare_cached(
        "SELECT connector_id, account_id, sync_id FROM px_journal
         WHERE sync_id >= ?1 AND sync_id < ?1 || char(1114111)
         GROUP BY connector_id, account_id, sync_id ORDER BY max(chunk) DESC LIMIT ?2",
    )?;
    let names = statement.query_map(params![prefix, limit], |row| {
        Ok(JournalName {
            connector_id: row.get(0)?,
            account_id: row.get(1)?,
            sync_id: row.get(2)?,
        })
    })?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Reads the entries of a sync's last run, from a number on.
pub(super) fn read(
    connection: &mut Connection,
    name: &JournalName,
    from: u64,
) -> Result<JournalPage, StoreError> {
    let transaction = connection.transaction()?;
    // A column's number goes no further.
    let from = from.clamp(1, i64::MAX.unsigned_abs());
    let of = [&name.sync_id, &name.connector_id, &name.account_id];
    let (run, first_kept): (i64, u64) = transaction
        .prepare_cached(
            "SELECT run, min(first_seq) FROM px_journal
             WHERE sync_id = ?1 AND connector_id = ?2 AND account_id = ?3
             GROUP BY run ORDER BY max(chunk) DESC LIMIT 1",
        )?
        .query_row(of, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| StoreError::NoSuchJournal {
            sync_id: name.sync_id.clone(),
        })?;
    let mut page = JournalPage {
        lines: Vec::new(),
        next: from,
        first_kept,
    };
    let mut statement = transaction.prepare_cached(
        "SELECT first_seq, entries, checksum FROM px_journal
         WHERE sync_id = ?1 AND run = ?2 AND last_seq >= ?3 ORDER BY first_seq",
    )?;
    let mut rows = statement.query(params![name.sync_id, run, from])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()?
        && bytes < PAGE_BYTES
    {
        let (first_seq, entries): (u64, String) = (row.get(0)?, row.get(1)?);
        if checksum(&entries) != row.get::<_, i64>(2)? {
            return Err(StoreError::Corrupt {
                details: format!(
                    "the journal of sync {:?} is not what was written, from entry {first_seq} on",
                    name.sync_id
                ),
            });
        }
        bytes += entries.len();
        for (seq, line) in (first_seq..).zip(entries.lines()) {
            if seq >= from {
                page.lines.push(line.to_owned());
                page.next = seq + 1;
            }
        }
    }
    Ok(page)
}

/// Removes the journals of a source.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    connector_id: &str,
    account_id: &str,
) -> rusqlite::Result<()> {
    let forgotten = transaction.query_row(
        "SELECT ifnull(sum(length(CAST(entries AS BLOB))), 0) FROM px_journal
         WHERE connector_id = ?1 AND account_id = ?2",
        [connector_id, account_id],
        |row| row.get::<_, i64>(0),
    )?;
    transaction.execute(
        "DELETE FROM px_journal WHERE connector_id = ?1 AND account_id = ?2",
        [connector_id, account_id],
    )?;
    transaction.execute(
        "UPDATE px_meta SET value = value - ?1 WHERE key = 'journal_bytes'",
        [forgotten],
    )?;
    Ok(())
}

/// As a signed number, which is what a column holds.
pub(super) fn checksum(entries: &str) -> i64 {
    xxh3_64(entries.as_bytes()).cast_signed()
}

#[cfg(test)]
mod tests {
    use parallax_core::{ConnectorOutput, JournalSink};
    use rusqlite::TransactionBehavior;

    use super::*;
    use crate::error::CommitError;
    use crate::findings::Collected;
    use crate::journal::{JournalQueue, SessionJournal};
    use crate::sqlite::open::{Location, Opened};
    use crate::sqlite::testing::{self, SEED, commit_found, findings, hosts, within};

    /// Stores a chunk of three entries of 11 bytes, from `first_seq` on.
    fn store(opened: &mut Opened, of: &Arc<JournalOf>, first_seq: u64, limits: Limits) {
        let chunk = Chunk {
            of: Arc::clone(of),
            first_seq,
            last_seq: first_seq + 2,
            entries: (first_seq..first_seq + 3)
                .map(|seq| format!("{{\"seq\":{seq:03}}}"))
                .collect::<Vec<_>>()
                .join("\n"),
        };
        let transaction = opened
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        insert(&transaction, &chunk).unwrap();
        retain(&transaction, limits).unwrap();
        transaction.commit().unwrap();
    }

    fn of(sync_id: &str, run: i64) -> Arc<JournalOf> {
        let name = JournalName {
            connector_id: "okta".to_owned(),
            account_id: "acme".to_owned(),
            sync_id: sync_id.to_owned(),
        };
        Arc::new(JournalOf { name, run })
    }

    #[test]
    fn oldest_entries_go_first_and_the_newest_stay() {
        let mut opened = Location::Memory.open().unwrap();
        // Two chunks of 35 bytes, and not three.
        let limits = Limits {
            bytes: 104,
            ..LIMITS
        };
        let (first, second) = (of("sync-1", 1), of("sync-2", 2));
        store(&mut opened, &first, 1, limits);
        store(&mut opened, &first, 4, limits);
        store(&mut opened, &second, 1, limits);
        let page = read(&mut opened.connection, &first.name, 1).unwrap();
        assert_eq!((page.first_kept, page.next), (4, 7));
        assert_eq!(page.lines.first().unwrap(), "{\"seq\":004}");
        let page = read(&mut opened.connection, &first.name, 6).unwrap();
        assert_eq!(page.lines, ["{\"seq\":006}"]);
        let page = read(&mut opened.connection, &first.name, 7).unwrap();
        assert_eq!((page.lines.len(), page.next), (0, 7));
        let page = read(&mut opened.connection, &first.name, u64::MAX).unwrap();
        assert_eq!(page.lines.len(), 0);

        let none = Limits { bytes: 0, age: -1 };
        store(&mut opened, &second, 4, none);
        let gone = read(&mut opened.connection, &first.name, 1).unwrap_err();
        assert_eq!(gone.code(), "no_such_journal");
        let page = read(&mut opened.connection, &second.name, 1).unwrap();
        assert_eq!((page.first_kept, page.lines.len()), (4, 3));
        let bytes = "SELECT value FROM px_meta WHERE key = 'journal_bytes'";
        let bytes: i64 = opened
            .connection
            .query_row(bytes, [], |row| row.get(0))
            .unwrap();
        assert_eq!(bytes, 35);
    }

    #[test]
    fn last_run_of_a_sync_counts() {
        let mut opened = Location::Memory.open().unwrap();
        let (failed, repeated) = (of("sync-1", 7), of("sync-1", 3));
        store(&mut opened, &failed, 1, LIMITS);
        store(&mut opened, &failed, 4, LIMITS);
        store(&mut opened, &repeated, 1, LIMITS);
        let page = read(&mut opened.connection, &repeated.name, 1).unwrap();
        assert_eq!((page.lines.len(), page.next), (3, 4));
        let found = find(&opened.connection, "sync", 10).unwrap();
        assert_eq!(found, std::slice::from_ref(&repeated.name));
        assert_eq!(find(&opened.connection, "sync-10", 10).unwrap(), []);
    }

    #[test]
    fn damaged_entries_are_an_error() {
        let mut opened = Location::Memory.open().unwrap();
        let of = of("sync-1", 1);
        store(&mut opened, &of, 1, LIMITS);
        let damage = "UPDATE px_journal SET entries = replace(entries, '2', '5')";
        opened.connection.execute(damage, []).unwrap();
        let error = read(&mut opened.connection, &of.name, 1).unwrap_err();
        assert_eq!(error.code(), "store_corrupt");
    }

    /// A commit that is tried again has another session, to which the run has told nothing. It began
    /// a journal of its own, which hid that of the run.
    #[test]
    fn commit_that_is_tried_again_ends_the_journal_of_its_run() {
        for is_stored in [true, false] {
            let mut opened = Location::Memory.open().unwrap();
            let queue = Arc::new(JournalQueue::default());
            let session = || Arc::new(SessionJournal::new(Some(Arc::clone(&queue))));
            let output = {
                let found = findings(1, [hosts("hosts", [(1, 1)])]).output;
                let mut run = found.run().clone();
                run.journal_seq = 2;
                ConnectorOutput::new(run, found.report().clone(), found.batches().to_vec(), 0)
            };
            let run = output.run();
            let ids = [&run.connector_id, &run.account_id, &run.sync_id];
            let first = session();
            for seq in 1..=2 {
                let step_id = format!("step-{seq}");
                first.append(&entry_now(ids, seq, JournalKind::StepStarted { step_id }));
            }
            let full = StoreError::Full {
                details: String::new(),
            };
            first.note_end(run, &Err(CommitError::Store(full)));
            if is_stored {
                let chunks = queue.take_all();
                within(&mut opened, |transaction| {
                    write(transaction, &chunks).unwrap();
                });
            }

            let name = of("sync-1", 0).name.clone();
            let name = JournalName {
                connector_id: "fleet".to_owned(),
                ..name
            };
            let collected = Collected::new(SEED, std::env::temp_dir(), session());
            commit_found(&mut opened, &mut Findings::new(output, collected));
            let page = read(&mut opened.connection, &name, 1).unwrap();
            let entries = page.lines.iter().map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).unwrap();
                format!("{} {}", entry["seq"], entry["kind"].as_str().unwrap())
            });
            assert_eq!(
                entries.collect::<Vec<_>>(),
                [
                    "1 step_started",
                    "2 step_started",
                    "3 commit_failed",
                    "4 committed"
                ]
            );
            assert!(queue.take_all().is_empty());
        }
    }

    /// A run that keeps no journal does not end that of another one, which failed under the same id.
    #[test]
    fn commit_of_a_run_that_told_nothing_has_a_journal_of_its_own() {
        let mut opened = Location::Memory.open().unwrap();
        let name = JournalName {
            connector_id: "fleet".to_owned(),
            ..of("sync-1", 0).name.clone()
        };
        store(
            &mut opened,
            &Arc::new(JournalOf {
                name: name.clone(),
                run: 7,
            }),
            1,
            LIMITS,
        );
        testing::commit(&mut opened, 1, [hosts("hosts", [(1, 1)])]);
        let page = read(&mut opened.connection, &name, 1).unwrap();
        assert_eq!((page.lines.len(), page.next), (1, 2));
    }
}
