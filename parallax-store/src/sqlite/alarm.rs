use std::collections::BTreeMap;

use parallax_core::{Counts, RecordKind};
use rusqlite::Transaction;

use crate::claims::ClaimSets;
use crate::delta::{Candidate, Delta};
use crate::error::StoreError;
use crate::findings::Findings;
use crate::guard::{Alarm, Guard};
use crate::sqlite::decide::{name_of, types};

/// Looks for a reason to hold the deletes of a commit.
pub(super) fn find_alarm(
    transaction: &Transaction<'_>,
    findings: &Findings,
    (entities, relationships): (&Delta, &Delta),
    sets: &ClaimSets,
    guard: &Guard,
) -> Result<Option<Alarm>, StoreError> {
    let lasting = |delta: &Delta| -> Vec<Candidate> {
        let deletes = delta.deletes.iter().filter(|delete| !delete.ephemeral);
        deletes.copied().collect()
    };
    let kinds = [
        (RecordKind::Entity, entities, lasting(entities)),
        (
            RecordKind::Relationship,
            relationships,
            lasting(relationships),
        ),
    ];
    if kinds.iter().all(|(_, _, deletes)| deletes.is_empty()) {
        return Ok(None);
    }
    let report = findings.output.report();
    for (_, _, deletes) in &kinds {
        if let Some(delete) = deletes.iter().find(|delete| delete.vanished) {
            let mut claims = sets.claims(delete.stored.claims);
            let step = claims.find(|(step_id, _)| report.step(step_id).is_none());
            let step_id = step.map(|(step_id, _)| step_id.to_owned());
            return Ok(Some(Alarm::StepGone(step_id.unwrap_or_default())));
        }
    }
    // What is left of each type, were the deletes done.
    let left = types(transaction, findings, [entities, relationships])?;
    for (kind, delta, deletes) in kinds {
        let mut deletes = deletes;
        if is_alarming(transaction, guard, kind, delta, &deletes, &left)?.is_none() {
            continue;
        }
        if kind == RecordKind::Relationship {
            // That a relationship goes with its end is nobody's surprise.
            deletes = without_ends_that_go(transaction, deletes, entities)?;
        }
        let alarm = is_alarming(transaction, guard, kind, delta, &deletes, &left)?;
        if alarm.is_some() {
            return Ok(alarm);
        }
    }
    Ok(None)
}

fn is_alarming(
    transaction: &Transaction<'_>,
    guard: &Guard,
    kind: RecordKind,
    delta: &Delta,
    deletes: &[Candidate],
    left: &BTreeMap<(RecordKind, String), Counts>,
) -> Result<Option<Alarm>, StoreError> {
    let (count, live) = (deletes.len() as u64, delta.lasting_before);
    if guard.are_many(count, live) {
        return Ok(Some(Alarm::Many {
            kind,
            deletes: count,
            live,
        }));
    }
    let mut by_name: BTreeMap<i64, u64> = BTreeMap::new();
    for delete in deletes {
        *by_name.entry(delete.stored.name).or_default() += 1;
    }
    for (name_id, records) in by_name {
        if records < Guard::TYPE {
            continue;
        }
        let name = name_of(transaction, name_id)?;
        let left = left.get(&(kind, name.clone())).copied().unwrap_or_default();
        if left.created + left.updated + left.unchanged + left.kept + left.held == 0 {
            return Ok(Some(Alarm::LastOfType { name, records }));
        }
    }
    Ok(None)
}

/// Leaves the relationships of which both ends stay.
fn without_ends_that_go(
    transaction: &Transaction<'_>,
    deletes: Vec<Candidate>,
    entities: &Delta,
) -> Result<Vec<Candidate>, StoreError> {
    let goes = |id: [u8; 16]| {
        let id = u128::from_be_bytes(id);
        let found = entities
            .deletes
            .binary_search_by_key(&id, |delete| delete.stored.id);
        found.is_ok()
    };
    let mut ends =
        transaction.prepare_cached("SELECT from_id, to_id FROM px_relationship WHERE n = ?1")?;
    let mut others = Vec::new();
    for delete in deletes {
        let (from, to) =
            ends.query_row([delete.stored.row], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if !goes(from) && !goes(to) {
            others.push(delete);
        }
    }
    Ok(others)
}
