use parallax_core::{RecordKind, StepStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::error::StoreError;
use crate::explain::{
    Claim, ClaimName, Confirmation, Explanation, InSource, Missed, State, Subject, SyncRef,
};
use crate::sqlite::records::{Found, Records, SourceRow};
use crate::sqlite::row::kind_no;

/// Says of each record that a subject names who claims it, and why it is there or gone.
pub(super) fn explain(
    connection: &mut Connection,
    subject: &Subject,
) -> Result<Vec<Explanation>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let records = Records::new(&transaction);
    let found = records.find(subject)?.into_iter();
    found.map(|found| explain_one(&records, found)).collect()
}

fn explain_one(records: &Records<'_>, found: Found) -> Result<Explanation, StoreError> {
    let mut sources = Vec::new();
    let mut statement = records.cached(match found.kind {
        RecordKind::Entity => {
            "SELECT s.source_id, s.connector_id, s.account_id, r.claims, r.held, r.type,
                 r.created_sync, r.changed_sync, s.last_sync, s.last_success_sync
             FROM px_source s CROSS JOIN px_entity r
                 ON r.source_id = s.source_id AND r.id = ?1"
        }
        RecordKind::Relationship => {
            "SELECT s.source_id, s.connector_id, s.account_id, r.claims, r.held, r.verb,
                 r.created_sync, r.changed_sync, s.last_sync, s.last_success_sync
             FROM px_source s CROSS JOIN px_relationship r
                 ON r.source_id = s.source_id AND r.id = ?1"
        }
    })?;
    let mut here = Vec::new();
    for live in statement.query_map([found.id], Live::read)? {
        let live = live?;
        here.push(live.source.source_id);
        sources.push(live.explain(records, found)?);
    }
    // The newest delete of each source: of several rows the one with the maximum is read.
    let mut statement = records.cached(
        "SELECT s.source_id, s.connector_id, s.account_id, h.sync, h.claims, h.changeset,
             h.created_sync, h.changed_sync, s.last_sync, s.last_success_sync, max(h.change)
         FROM px_change h JOIN px_source s ON s.source_id = h.source_id
         WHERE lower(hex(h.id)) = ?1 AND h.kind = ?2 AND h.action = 'deleted'
         GROUP BY s.source_id",
    )?;
    for gone in statement.query_map(params![found.hex(), kind_no(found.kind)], Gone::read)? {
        let gone = gone?;
        if !here.contains(&gone.source.source_id) {
            sources.push(gone.explain(records)?);
        }
    }
    sources.sort_by(|a, b| {
        let name = |s: &InSource| (s.connector_id.clone(), s.account_id.clone());
        name(a).cmp(&name(b))
    });
    Ok(Explanation {
        id: found.hex(),
        record: records.name(found)?,
        sources,
    })
}

/// What of a source's syncs a record's fate depends on.
struct Syncs {
    created: i64,
    changed: i64,
    last: Option<i64>,
    /// The last that did not fail.
    last_success: Option<i64>,
}

impl Syncs {
    /// Reads four columns, from the seventh.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            created: row.get(6)?,
            changed: row.get(7)?,
            last: row.get(8)?,
            last_success: row.get(9)?,
        })
    }

    fn failed_since(&self, records: &Records<'_>) -> Result<Option<SyncRef>, StoreError> {
        match self.last.filter(|last| Some(*last) != self.last_success) {
            Some(last) => records.sync(last),
            None => Ok(None),
        }
    }
}

/// A record that a source has.
struct Live {
    source: SourceRow,
    claims: i64,
    /// The changeset that holds its delete; negative once that was rejected.
    held: Option<i64>,
    name: i64,
    syncs: Syncs,
}

/// What is known of one claim of a record.
struct Known {
    name: ClaimName,
    looked: Option<i64>,
    missed: Option<(i64, String)>,
    /// How the step ended in the last sync that did not fail.
    step: Option<String>,
}

impl Live {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: SourceRow::read(row)?,
            claims: row.get(3)?,
            held: row.get(4)?,
            name: row.get(5)?,
            syncs: Syncs::read(row)?,
        })
    }

    fn explain(self, records: &Records<'_>, found: Found) -> Result<InSource, StoreError> {
        let claims = records.claims(self.claims)?.into_iter();
        let claims: Vec<Known> = claims
            .map(|name| self.known(records, name))
            .collect::<Result<_, _>>()?;
        let (state, confirmed) = match self.held {
            Some(held) => (held_state(records, held)?, None),
            None => {
                let (state, seen, by) = self.judge(records, found, &claims)?;
                let confirmation = |sync| Confirmation { sync, claims: by };
                (state, records.sync(seen)?.map(confirmation))
            }
        };
        let claims = claims.into_iter().map(|claim| {
            let looked = claim.looked.map(|sync| records.sync(sync)).transpose()?;
            let missed = match claim.missed {
                Some((sync, because)) => Some(Missed {
                    sync: records.sync(sync)?,
                    because,
                }),
                None => None,
            };
            Ok::<_, StoreError>(Claim {
                name: claim.name,
                looked: looked.flatten(),
                missed,
            })
        });
        Ok(InSource {
            state,
            claims: claims.collect::<Result<_, _>>()?,
            created: records.sync(self.syncs.created)?,
            changed: records.sync(self.syncs.changed)?,
            confirmed,
            failed_since: self.syncs.failed_since(records)?,
            connector_id: self.source.connector_id,
            account_id: self.source.account_id,
        })
    }

    fn known(&self, records: &Records<'_>, name: ClaimName) -> Result<Known, StoreError> {
        let source_id = self.source.source_id;
        let claim = records
            .cached(
                "SELECT looked_sync, missed_sync, missed_because FROM px_claim
                 WHERE source_id = ?1 AND step_id = ?2 AND ifnull(scope, x'') = ifnull(?3, x'')",
            )?
            .query_row(params![source_id, name.step_id, name.scope], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?))
            })
            .optional()?;
        let (looked, missed, because): (Option<i64>, Option<i64>, _) = claim.unwrap_or_default();
        let step: Option<String> = records
            .cached("SELECT status FROM px_sync_step WHERE sync = ?1 AND step_id = ?2")?
            .query_row(params![self.syncs.last_success, name.step_id], |row| {
                row.get(0)
            })
            .optional()?;
        let last = self.syncs.last_success;
        // Nobody looks for what a step claimed that is no longer declared.
        let looked = looked.filter(|looked| step.is_some() || Some(*looked) < last);
        Ok(Known {
            name,
            looked,
            missed: missed
                .filter(|missed| looked.is_none_or(|looked| looked < *missed))
                .map(|missed| (missed, because.unwrap_or_default())),
            step,
        })
    }

    /// Tells whether the record was seen by the last sync that did not fail, and otherwise when it
    /// was seen last, and by whose claims.
    fn judge(
        &self,
        records: &Records<'_>,
        found: Found,
        claims: &[Known],
    ) -> Result<(State, i64, Vec<ClaimName>), StoreError> {
        let Syncs {
            created, changed, ..
        } = self.syncs;
        let names_at = |sync| {
            let at = claims
                .iter()
                .filter(move |claim| claim.looked == Some(sync));
            at.map(|claim| claim.name.clone()).collect::<Vec<_>>()
        };
        let mut last_seen = created.max(changed);
        if let Some(last) = self.syncs.last_success {
            // A claim whose step looked everywhere and did not find the record would have fallen.
            let names = names_at(last);
            if last_seen >= last || !names.is_empty() || self.none_was_kept(records, found, last)? {
                return Ok((State::Live, last, only(claims, names)));
            }
        }
        for looked in claims.iter().filter_map(|claim| claim.looked) {
            last_seen = last_seen.max(looked);
        }
        let names = only(claims, names_at(last_seen));
        // What a failed step saw does not count.
        let perhaps_seen = claims.iter().any(|claim| {
            claim.step.as_deref() == Some(StepStatus::Completed.as_str())
                || claim.step.as_deref() == Some(StepStatus::Incomplete.as_str())
        });
        Ok((State::Kept { perhaps_seen }, last_seen, names))
    }

    /// Tells whether a sync saw every record of this one's type that the source had.
    fn none_was_kept(
        &self,
        records: &Records<'_>,
        found: Found,
        sync: i64,
    ) -> Result<bool, StoreError> {
        let kept: Option<u64> = records
            .cached(
                "SELECT kept FROM px_sync_type WHERE sync = ?1 AND kind = ?2
                     AND name = (SELECT name FROM px_name WHERE name_id = ?3)",
            )?
            .query_row(params![sync, kind_no(found.kind), self.name], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(kept == Some(0))
    }
}

/// Completes whose claims saw a record: if it has one only, that did.
fn only(claims: &[Known], names: Vec<ClaimName>) -> Vec<ClaimName> {
    match claims {
        [only] => vec![only.name.clone()],
        _ => names,
    }
}

fn held_state(records: &Records<'_>, held: i64) -> Result<State, StoreError> {
    let changeset = held.unsigned_abs();
    let row = records
        .cached("SELECT sync, reason, closed_at FROM px_changeset WHERE changeset = ?1")?
        .query_row([changeset], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?))
        })
        .optional()?;
    let Some((sync, reason, closed_at)) = row else {
        return Err(StoreError::Corrupt {
            details: format!("a record names changeset {changeset}, which is not there"),
        });
    };
    Ok(if held > 0 {
        State::Held {
            changeset,
            by: records.sync(sync)?,
            reason,
        }
    } else {
        State::Pinned {
            changeset,
            at: closed_at.and_then(Timestamp::from_micros),
        }
    })
}

/// A record that a source had.
struct Gone {
    source: SourceRow,
    sync: i64,
    claims: i64,
    changeset: Option<u64>,
    syncs: Syncs,
}

impl Gone {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: SourceRow::read(row)?,
            sync: row.get(3)?,
            claims: row.get(4)?,
            changeset: row.get(5)?,
            syncs: Syncs::read(row)?,
        })
    }

    fn explain(self, records: &Records<'_>) -> Result<InSource, StoreError> {
        let deletion = records.deletion(self.sync, self.claims, self.changeset)?;
        Ok(InSource {
            connector_id: self.source.connector_id,
            account_id: self.source.account_id,
            state: State::Gone(deletion),
            claims: Vec::new(),
            created: records.sync(self.syncs.created)?,
            changed: records.sync(self.syncs.changed)?,
            confirmed: None,
            failed_since: None,
        })
    }
}
