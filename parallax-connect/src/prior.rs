use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parallax_core::{Batch, EntityId, EntityKey, EntityRef, RecordKind, RelationshipRef};

/// What the steps that a step [reads](crate::Step::reads) have emitted.
///
/// Given by reference: reading costs no copy, however many steps read. Steps in the order in which
/// they are declared to be read, records in the order of emission. Rejected records are not there.
#[derive(Clone, Debug)]
pub struct Prior {
    account_id: Arc<str>,
    steps: Arc<[Arc<Sealed>]>,
}

/// All that one completed step emitted.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    batches: Vec<Arc<Batch>>,
    index: OnceLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: HashMap<EntityId, Place>,
    by_type: HashMap<String, Vec<Place>>,
    by_verb: HashMap<String, Vec<Place>>,
}

/// Where an emission is: which batch, and which place in it.
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
                    if let Some(entity) = emission.entity() {
                        index.by_id.entry(entity.id()).or_insert((number, place));
                        add(&mut index.by_type, entity.entity_type(), (number, place));
                    }
                }
                for (place, emission) in batch.emissions(RecordKind::Relationship).enumerate() {
                    if let Some(relationship) = emission.relationship() {
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
        self.steps.iter().flat_map(move |step| {
            let places = step.index().by_type.get(entity_type);
            places
                .into_iter()
                .flatten()
                .filter_map(|&place| step.entity_at(place))
        })
    }

    /// Returns the entity of a type and key, if one was emitted.
    pub fn entity(&self, key: impl Into<EntityKey>) -> Option<EntityRef<'_>> {
        let id = key.into().id(&self.account_id);
        self.steps.iter().find_map(|step| {
            step.index()
                .by_id
                .get(&id)
                .and_then(|&place| step.entity_at(place))
        })
    }

    /// Returns the relationships of one verb.
    pub fn relationships<'a>(&'a self, verb: &'a str) -> impl Iterator<Item = RelationshipRef<'a>> {
        self.steps.iter().flat_map(move |step| {
            let places = step.index().by_verb.get(verb);
            places
                .into_iter()
                .flatten()
                .filter_map(|&place| step.relationship_at(place))
        })
    }
}
