use parallax_core::{Counts, JournalKind, RecordKind, SyncStats};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::engine::Word;
use crate::error::StoreError;
use crate::journal::JournalName;
use crate::result::Decided;
use crate::sqlite::delete::{delete, wait_for_deleted};
use crate::sqlite::journal;
use crate::sqlite::retain::{LIMITS, retain};
use crate::sqlite::write::now;

/// Returns the state of a changeset after a word.
const fn state_after(word: Word) -> &'static str {
    match word {
        Word::Approve => "approved",
        Word::Reject => "rejected",
    }
}

struct Changeset {
    source_id: i64,
    /// The sync that held its deletes.
    sync_id: Option<String>,
    connector_id: String,
    account_id: String,
    state: String,
    closed_sync: Option<i64>,
}

/// Deletes what a changeset still holds, or keeps it from being held again.
pub(super) fn decide(
    transaction: &Transaction<'_>,
    changeset: u64,
    word: Word,
) -> Result<Decided, StoreError> {
    let no_such = || StoreError::NoSuchChangeset { changeset };
    let number = i64::try_from(changeset).map_err(|_| no_such())?;
    let found = transaction
        .prepare_cached(
            "SELECT c.source_id, s.connector_id, s.account_id, c.state, c.closed_sync, y.sync_id
             FROM px_changeset c JOIN px_source s ON s.source_id = c.source_id
             LEFT JOIN px_sync y ON y.sync = c.sync
             WHERE c.changeset = ?1",
        )?
        .query_row([number], |row| {
            Ok(Changeset {
                source_id: row.get(0)?,
                connector_id: row.get(1)?,
                account_id: row.get(2)?,
                state: row.get(3)?,
                closed_sync: row.get(4)?,
                sync_id: row.get(5)?,
            })
        })
        .optional()?;
    let found = found.ok_or_else(no_such)?;
    let mut decided = Decided {
        changeset,
        connector_id: found.connector_id.clone(),
        account_id: found.account_id.clone(),
        entities: 0,
        relationships: 0,
        repeated: found.state == state_after(word),
    };
    if decided.repeated {
        (decided.entities, decided.relationships) = match word {
            Word::Approve => deleted_by(transaction, found.closed_sync)?,
            Word::Reject => {
                let rows = |kind| rows(transaction, &found, kind, -number);
                (
                    rows(RecordKind::Entity)?.len() as u64,
                    rows(RecordKind::Relationship)?.len() as u64,
                )
            }
        };
        return Ok(decided);
    }
    if found.state != "open" {
        return Err(StoreError::ChangesetClosed {
            changeset,
            state: found.state,
        });
    }
    let entities = rows(transaction, &found, RecordKind::Entity, number)?;
    let relationships = rows(transaction, &found, RecordKind::Relationship, number)?;
    decided.entities = entities.len() as u64;
    decided.relationships = relationships.len() as u64;
    let closed_sync = match word {
        Word::Approve => Some(approve(
            transaction,
            &found,
            number,
            &entities,
            &relationships,
        )?),
        Word::Reject => {
            for table in ["px_entity", "px_relationship"] {
                let sql =
                    format!("UPDATE {table} SET held = -?2 WHERE source_id = ?1 AND held = ?2");
                transaction.execute(&sql, [found.source_id, number])?;
            }
            None
        }
    };
    transaction.execute(
        "UPDATE px_changeset SET state = ?2, closed_at = ?3, closed_sync = ?4
         WHERE changeset = ?1",
        params![number, state_after(word), now(), closed_sync],
    )?;
    tell(transaction, found.sync_id, &decided, word)?;
    // A commit that was decided on what was before decides anew.
    transaction.execute(
        "UPDATE px_source SET generation = generation + 1 WHERE source_id = ?1",
        [found.source_id],
    )?;
    Ok(decided)
}

/// Tells in the journal of the sync that held them what became of the deletes.
fn tell(
    transaction: &Transaction<'_>,
    sync_id: Option<String>,
    decided: &Decided,
    word: Word,
) -> Result<(), StoreError> {
    let Some(sync_id) = sync_id else {
        return Ok(());
    };
    let Decided {
        changeset,
        entities,
        relationships,
        ..
    } = *decided;
    let kind = match word {
        Word::Approve => JournalKind::DeletesApproved {
            changeset,
            entities,
            relationships,
        },
        Word::Reject => JournalKind::DeletesRejected {
            changeset,
            entities,
            relationships,
        },
    };
    let name = JournalName {
        connector_id: decided.connector_id.clone(),
        account_id: decided.account_id.clone(),
        sync_id,
    };
    journal::write_word(transaction, name, kind)
}

/// Lists the rows that a changeset holds, with their ids, in the order of ids.
fn rows(
    transaction: &Transaction<'_>,
    changeset: &Changeset,
    kind: RecordKind,
    held: i64,
) -> Result<Vec<(i64, u128)>, StoreError> {
    let mut statement = transaction.prepare_cached(match kind {
        RecordKind::Entity => {
            "SELECT n, id FROM px_entity WHERE source_id = ?1 AND held = ?2 ORDER BY id"
        }
        RecordKind::Relationship => {
            "SELECT n, id FROM px_relationship WHERE source_id = ?1 AND held = ?2 ORDER BY id"
        }
    })?;
    let rows = statement.query_map([changeset.source_id, held], |row| {
        Ok((row.get(0)?, u128::from_be_bytes(row.get(1)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes rows as a commit of its own, with its own stats. Returns its sync.
fn approve(
    transaction: &Transaction<'_>,
    changeset: &Changeset,
    number: i64,
    entities: &[(i64, u128)],
    relationships: &[(i64, u128)],
) -> Result<i64, StoreError> {
    let source_id = changeset.source_id;
    let live: (u64, u64) = transaction.query_row(
        "SELECT entities, relationships FROM px_source WHERE source_id = ?1",
        [source_id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let counts = |live: u64, deletes: &[_]| Counts {
        deleted: deletes.len() as u64,
        kept: live.saturating_sub(deletes.len() as u64),
        ..Counts::default()
    };
    let stats = SyncStats::new(counts(live.0, entities), counts(live.1, relationships));
    let sync_id = free_sync_id(transaction, source_id, number)?;
    let columns = SyncStats::FIELDS.join(", ");
    let values = stats.values().map(|count| count.to_string()).join(", ");
    transaction.execute(
        &format!(
            "INSERT INTO px_sync (source_id, sync_id, connector_version, outcome, fingerprint,
                 started_at, duration, committed_at, undelivered_events, {columns})
             VALUES (?1, ?2, '', 'approved', x'', ?3, 0, ?3, 0, {values})"
        ),
        params![source_id, sync_id, now()],
    )?;
    let sync = transaction.last_insert_rowid();
    let row = |(row, _): &(i64, u128)| *row;
    let gone = [
        (RecordKind::Relationship, relationships),
        (RecordKind::Entity, entities),
    ];
    for (kind, rows) in gone {
        let deletes: Vec<i64> = rows.iter().map(row).collect();
        let deleted = delete(transaction, sync, kind, &deletes, Some(number))?;
        if deleted != rows.len() as u64 {
            return Err(StoreError::Corrupt {
                details: format!(
                    "changeset {number} holds {} that are not there",
                    kind.plural()
                ),
            });
        }
    }
    wait_for_deleted(transaction, entities.iter().map(|(_, id)| *id))?;
    transaction.execute(
        "UPDATE px_source SET entities = entities - ?2, relationships = relationships - ?3,
             changes = changes + ?2 + ?3
         WHERE source_id = ?1",
        params![source_id, entities.len() as u64, relationships.len() as u64],
    )?;
    transaction.execute(
        "INSERT INTO px_sync_type
         SELECT ?1, kind, n.name, 0, 0, 0, count(*), 0, 0
         FROM px_change c JOIN px_name n ON n.name_id = c.name
         WHERE c.source_id = ?2 AND c.sync = ?1 GROUP BY kind, n.name",
        [sync, source_id],
    )?;
    retain(transaction, source_id, [None; 2], LIMITS)?;
    Ok(sync)
}

/// Returns an id for the approval of a changeset. A run may have been given any.
fn free_sync_id(
    transaction: &Transaction<'_>,
    source_id: i64,
    number: i64,
) -> Result<String, StoreError> {
    let mut is_taken = transaction
        .prepare_cached("SELECT 1 FROM px_sync WHERE source_id = ?1 AND sync_id = ?2")?;
    let mut sync_id = format!("approved:{number}");
    let mut next = 2;
    while is_taken.exists(params![source_id, sync_id])? {
        sync_id = format!("approved:{number}:{next}");
        next += 1;
    }
    Ok(sync_id)
}

fn deleted_by(transaction: &Transaction<'_>, sync: Option<i64>) -> Result<(u64, u64), StoreError> {
    let deleted = transaction
        .query_row(
            "SELECT entities_deleted, relationships_deleted FROM px_sync WHERE sync = ?1",
            [sync],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(deleted.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Word;
    use crate::session::Options;
    use crate::sqlite::commit::decide_and_write;
    use crate::sqlite::open::{Location, Opened};
    use crate::sqlite::testing::{SEED, column, commit, findings_of, hosts, within};

    /// Commits hosts under a sync id.
    fn sync(store: &mut Opened, sync_id: &str, number: u64, count: u64) -> Result<(), String> {
        let found = hosts("hosts", (0..count).map(|host| (host, 1)));
        let mut findings = findings_of(sync_id, number, [found]);
        let written = decide_and_write(store, &mut findings, &Options::default(), SEED);
        written.map(|_| ()).map_err(|error| error.code().to_owned())
    }

    /// A run may be called what an approval was going to be called. Then it could never be approved,
    /// or the run was told of a failed store.
    #[test]
    fn run_and_approval_never_share_an_id() {
        let approve = |store: &mut Opened| {
            within(store, |transaction| {
                decide(transaction, 1, Word::Approve).unwrap()
            })
        };
        let syncs = "SELECT sync_id || ' ' || outcome FROM px_sync ORDER BY sync";
        let mut store = Location::Memory.open().unwrap();
        sync(&mut store, "approved:1", 1, 200).unwrap();
        sync(&mut store, "approved:1:2", 2, 10).unwrap();
        assert_eq!(approve(&mut store).entities, 190);
        assert!(approve(&mut store).repeated);
        let all = [
            "approved:1 committed",
            "approved:1:2 committed",
            "approved:1:3 approved",
        ];
        assert_eq!(column(&store.connection, syncs), all);

        let mut store = Location::Memory.open().unwrap();
        commit(
            &mut store,
            1,
            [hosts("hosts", (0..200).map(|host| (host, 1)))],
        );
        commit(&mut store, 2, [hosts("hosts", [(0, 1)])]);
        assert_eq!(approve(&mut store).entities, 199);
        let refused = sync(&mut store, "approved:1", 3, 1).unwrap_err();
        assert_eq!(refused, "sync_id_reused");
    }
}
