use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use parallax_core::{Batch, EntityId, EntityKey, EntityRef, RecordKind, RelationshipRef};

/// What the steps that a step [reads](crate::Step::reads) have emitted.
///
/// Given by reference: reading costs no copy, however many steps read. In the order of declaration
/// of the steps, then of emission; of records with the same id the first is given, as it is the one
/// that counts. Rejected records are not there; what the step does not find because of that is kept.
#[derive(Clone)]
pub struct Prior {
    account_id: Arc<str>,
    steps: Arc<[Arc<Sealed>]>,
}

/// All that one completed step emitted.
pub(crate) struct Sealed {
    batches: Vec<Arc<Batch>>,
    /// Made by the first reader that asks, for all of them.
    index: OnceLock<Index>,
}

/// Where the first record of each id is.
#[derive(Default)]
struct Index {
    by_id: HashMap<EntityId, Place>,
    by_type: HashMap<String, Vec<Place>>,
    by_verb: HashMap<String, Vec<Place>>,
}

/// Which batch, and which place in it.
type Place = (usize, usize);

impl Sealed {
    pub(crate) fn new(batches: Vec<Arc<Batch>>) -> Self {
        Self {
            batches,
            index: OnceLock::new(),
        }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            for (number, batch) in self.batches.iter().enumerate() {
                for (place, emission) in batch.emissions(RecordKind::Entity).enumerate() {
                    if let Some(entity) = emission.entity()
                        && let Entry::Vacant(vacant) = index.by_id.entry(entity.id())
                    {
                        vacant.insert((number, place));
                        add(&mut index.by_type, entity.entity_type(), (number, place));
                    }
                }
            }
            let mut seen = HashSet::new();
            for (number, batch) in self.batches.iter().enumerate() {
                for (place, emission) in batch.emissions(RecordKind::Relationship).enumerate() {
                    if let Some(relationship) = emission.relationship()
                        && seen.insert(relationship.id())
                    {
                        add(&mut index.by_verb, relationship.verb(), (number, place));
                    }
                }
            }
            index
        })
    }

    fn entity_at(&self, (batch, place): Place) -> Option<EntityRef<'_>> {
        self.batches
            .get(batch)?
            .emission(RecordKind::Entity, place)?
            .entity()
    }

    fn relationship_at(&self, (batch, place): Place) -> Option<RelationshipRef<'_>> {
        self.batches
            .get(batch)?
            .emission(RecordKind::Relationship, place)?
            .relationship()
    }
}

fn add(lists: &mut HashMap<String, Vec<Place>>, name: &str, place: Place) {
    match lists.get_mut(name) {
        Some(list) => list.push(place),
        None => {
            lists.insert(name.to_owned(), vec![place]);
        }
    }
}

impl Prior {
    pub(crate) fn new(account_id: Arc<str>, steps: Arc<[Arc<Sealed>]>) -> Self {
        Self { account_id, steps }
    }

    /// Returns the entities of one type.
    pub fn entities<'a>(&'a self, entity_type: &'a str) -> impl Iterator<Item = EntityRef<'a>> {
        let entities = self.steps.iter().flat_map(move |step| {
            let places = step.index().by_type.get(entity_type);
            let places = places.into_iter().flatten();
            places.filter_map(|&place| step.entity_at(place))
        });
        self.first_of_each(entities, EntityRef::id)
    }

    /// Returns the entity of a type and key, if one was emitted.
    ///
    /// As in [`emit`](crate::StepContext::emit), a key belongs to the account that is read unless
    /// it says otherwise.
    pub fn entity(&self, key: impl Into<EntityKey>) -> Option<EntityRef<'_>> {
        let id = key.into().id(&self.account_id);
        self.steps.iter().find_map(|step| {
            let place = step.index().by_id.get(&id)?;
            step.entity_at(*place)
        })
    }

    /// Returns the relationships of one verb.
    pub fn relationships<'a>(&'a self, verb: &'a str) -> impl Iterator<Item = RelationshipRef<'a>> {
        let relationships = self.steps.iter().flat_map(move |step| {
            let places = step.index().by_verb.get(verb);
            let places = places.into_iter().flatten();
            places.filter_map(|&place| step.relationship_at(place))
        });
        self.first_of_each(relationships, RelationshipRef::id)
    }

    fn first_of_each<T, I: Hash + Eq>(
        &self,
        records: impl Iterator<Item = T>,
        id: impl Fn(&T) -> I,
    ) -> impl Iterator<Item = T> {
        // The records of one step have ids of their own.
        let mut seen = (self.steps.len() > 1).then(HashSet::new);
        records.filter(move |record| seen.as_mut().is_none_or(|seen| seen.insert(id(record))))
    }
}

impl fmt::Debug for Prior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prior")
            .field("steps", &self.steps.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::Given;
    use crate::{Step, StepContext, entity, relationship, run_connector, step};

    /// Runs `read` in a step that reads `users` and `groups`, where both have emitted.
    async fn read(read: fn(&Prior)) {
        let given = Given(move || -> Vec<Step<'static>> {
            vec![
                step("users", "", async |ctx: StepContext| {
                    ctx.emit(entity("user", "ann").property("from", "users"))?;
                    ctx.emit(entity("user", "bob").property("load", f64::NAN))
                        .ok();
                    ctx.emit(entity("user", "bob").property("from", "users"))?;
                    ctx.emit(entity("user", "ann").property("from", "users, again"))?;
                    ctx.emit(entity("user", "eve").global())?;
                    ctx.emit(relationship(("user", "ann"), "KNOWS", ("user", "bob")))?;
                    ctx.emit(relationship(("user", "ann"), "KNOWS", ("user", "bob")))?;
                    Ok(())
                }),
                step("groups", "", async |ctx: StepContext| {
                    // More than one batch.
                    for n in 0..10_000 {
                        ctx.emit(entity("group", n))?;
                    }
                    ctx.emit(entity("user", "ann").property("from", "groups"))?;
                    ctx.emit(entity("user", "joe").property("from", "groups"))?;
                    ctx.emit(relationship(("user", "bob"), "KNOWS", ("user", "ann")))?;
                    ctx.emit(relationship(("user", "ann"), "KNOWS", ("user", "bob")))?;
                    ctx.emit(relationship(("user", "ann"), "IN", ("group", 1)))?;
                    Ok(())
                }),
                step("other", "", async |ctx: StepContext| {
                    Ok(ctx.emit(entity("user", "mia"))?)
                }),
                step("reads", "", move |ctx| async move {
                    read(ctx.prior());
                    Ok(())
                })
                // The order of declaration counts, not this one.
                .reads(["groups", "users"])
                .depends_on(["other"]),
            ]
        });
        let output = run_connector(&given, "acme", "sync-001", None)
            .await
            .unwrap();
        let step = output.report().step("reads").unwrap();
        assert!(step.status.is_ok(), "{:?}", step.error);
    }

    fn told(entity: EntityRef<'_>) -> (&str, &str) {
        let from = entity
            .property("from")
            .and_then(parallax_core::ValueRef::as_str);
        (entity.key(), from.unwrap_or_default())
    }

    #[tokio::test]
    async fn entities_are_found_by_type_the_first_of_each_id() {
        read(|prior| {
            let users: Vec<_> = prior.entities("user").map(told).collect();
            let expected = [
                ("ann", "users"),
                ("bob", "users"),
                ("eve", ""),
                ("joe", "groups"),
            ];
            assert_eq!(users, expected);
            let groups = prior.entities("group").map(|group| group.key());
            assert!(groups.eq((0..10_000).map(|n| n.to_string())));
            assert_eq!(prior.entities("host").count(), 0);
        })
        .await;
    }

    #[tokio::test]
    async fn an_entity_is_found_by_its_key() {
        read(|prior| {
            let found = |key: &str| prior.entity(("user", key)).map(told);
            assert_eq!(found("ann"), Some(("ann", "users")));
            assert_eq!(found("joe"), Some(("joe", "groups")));
            assert_eq!(found("mia"), None);
            assert_eq!(found(""), None);
            assert_eq!(prior.entity(("group", 9_999)).unwrap().key(), "9999");
            // A key belongs to the account of the run, unless it says otherwise.
            assert_eq!(found("eve"), None);
            assert!(
                prior
                    .entity(EntityKey::new("user", "eve").global())
                    .is_some()
            );
            assert!(
                prior
                    .entity(EntityKey::new("user", "ann").in_account("acme"))
                    .is_some()
            );
            assert!(
                prior
                    .entity(EntityKey::new("user", "ann").in_account("other"))
                    .is_none()
            );
        })
        .await;
    }

    #[tokio::test]
    async fn relationships_are_found_by_verb_the_first_of_each_id() {
        read(|prior| {
            let ends = |verb| -> Vec<_> {
                let found = prior.relationships(verb);
                found
                    .map(|found| (found.from().key, found.to().key))
                    .collect()
            };
            assert_eq!(ends("KNOWS"), [("ann", "bob"), ("bob", "ann")]);
            assert_eq!(ends("IN"), [("ann", "1")]);
            assert_eq!(ends("OWNS"), []);
        })
        .await;
    }

    #[tokio::test]
    async fn a_step_that_reads_nothing_has_no_prior() {
        let given = Given(|| {
            vec![
                step("users", "", async |ctx: StepContext| {
                    Ok(ctx.emit(entity("user", "ann"))?)
                }),
                step("groups", "", async |ctx: StepContext| {
                    assert_eq!(ctx.prior().entities("user").count(), 0);
                    assert_eq!(format!("{:?}", ctx.prior()), "Prior { steps: 0, .. }");
                    Ok(())
                })
                .depends_on(["users"]),
            ]
        });
        let output = run_connector(&given, "acme", "sync-001", None)
            .await
            .unwrap();
        assert!(output.report().is_complete());
    }
}
