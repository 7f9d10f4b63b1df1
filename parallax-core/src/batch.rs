use std::fmt;
use std::sync::Arc;

use crate::encode::{ENTITY, RELATIONSHIP, Reader};
use crate::error::Rejection;
use crate::id::{EntityId, EntityKey, Namespace, RelationshipId};
use crate::record::Record;
use crate::stats::RecordKind;
use crate::value::ValueRef;

/// Records that a step emitted, in order, packed into one buffer.
///
/// A record costs its canonical bytes and 28 bytes more; it is read through [`EntityRef`] and
/// [`RelationshipRef`] views, never unpacked into maps.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entities: Vec<Entry>,
    relationships: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    id: [u8; 16],
    start: u32,
    /// 0 for a rejected record: no accepted one is empty.
    length: u32,
    scope: u32,
}

const NO_SCOPE: u32 = u32::MAX;

impl Batch {
    /// Returns the accepted entities in the order of their emission.
    pub fn entities(&self) -> impl Iterator<Item = EntityRef<'_>> {
        self.emissions(RecordKind::Entity)
            .filter_map(EmissionRef::entity)
    }

    /// Returns the accepted relationships in the order of their emission.
    pub fn relationships(&self) -> impl Iterator<Item = RelationshipRef<'_>> {
        self.emissions(RecordKind::Relationship)
            .filter_map(EmissionRef::relationship)
    }

    /// Returns all emissions of one kind in order: the accepted ones, and the rejected ones whose
    /// id is known.
    pub fn emissions(&self, kind: RecordKind) -> impl ExactSizeIterator<Item = EmissionRef<'_>> {
        self.entries(kind)
            .iter()
            .map(|entry| self.emission_of(entry))
    }

    /// Returns one emission by its place in [`emissions`](Self::emissions).
    pub fn emission(&self, kind: RecordKind, place: usize) -> Option<EmissionRef<'_>> {
        self.entries(kind)
            .get(place)
            .map(|entry| self.emission_of(entry))
    }

    /// Returns the memory that the batch holds, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
            + (self.entities.len() + self.relationships.len()) * std::mem::size_of::<Entry>()
    }

    fn entries(&self, kind: RecordKind) -> &[Entry] {
        match kind {
            RecordKind::Entity => &self.entities,
            RecordKind::Relationship => &self.relationships,
        }
    }

    fn emission_of(&self, entry: &Entry) -> EmissionRef<'_> {
        let start = entry.start as usize;
        EmissionRef {
            id: entry.id,
            scope: (entry.scope != NO_SCOPE).then_some(entry.scope),
            content: self
                .bytes
                .get(start..start + entry.length as usize)
                .filter(|content| !content.is_empty()),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("entities", &self.entities.len())
            .field("relationships", &self.relationships.len())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// Packs records of one account into [`Batch`]es.
#[derive(Debug)]
pub struct BatchBuilder {
    account_id: Arc<str>,
    batch: Batch,
}

impl BatchBuilder {
    /// A batch is sealed at this size: large enough to amortise its cost, small enough that a
    /// streaming sink holds little.
    const SEAL_AT: usize = 256 << 10;

    /// Makes an empty builder for records of `account_id`.
    pub fn new(account_id: Arc<str>) -> Self {
        Self {
            account_id,
            batch: Batch::default(),
        }
    }

    /// Appends a record that belongs to the `scope`-th scope of its step.
    ///
    /// # Errors
    ///
    /// Returns why the record is rejected, and whether it is known which record it was: then the
    /// emission is noted, so that a stored record of this id is not taken for gone.
    pub fn push(
        &mut self,
        record: &mut Record,
        scope: Option<u32>,
    ) -> Result<(), (Rejection, bool)> {
        let Batch {
            bytes,
            entities,
            relationships,
        } = &mut self.batch;
        let start = bytes.len();
        let (id, checked, entries) = match record {
            Record::Entity(entity) => {
                entity.check_id().map_err(|rejection| (rejection, false))?;
                let checked = entity.check();
                if checked.is_ok() {
                    entity.put(&self.account_id, bytes);
                }
                let id = entity.key().id_by(&self.account_id, bytes);
                (id.to_bytes(), checked, entities)
            }
            Record::Relationship(relationship) => {
                relationship
                    .check_id()
                    .map_err(|rejection| (rejection, false))?;
                let (from, to, id) = relationship.ids(&self.account_id, bytes);
                let checked = relationship.check();
                if checked.is_ok() {
                    relationship.put(from, to, bytes);
                }
                (id.to_bytes(), checked, relationships)
            }
        };
        #[expect(clippy::cast_possible_truncation, reason = "sealed far below 4 GiB")]
        entries.push(Entry {
            id,
            start: start as u32,
            length: (bytes.len() - start) as u32,
            scope: scope.unwrap_or(NO_SCOPE),
        });
        checked.map_err(|rejection| (rejection, true))
    }

    /// Takes the batch once it is full.
    pub fn take_full(&mut self) -> Option<Arc<Batch>> {
        if self.batch.size() < Self::SEAL_AT {
            return None;
        }
        // Where one batch was filled, another like it follows; most steps never fill one.
        let next = Batch {
            bytes: like(&self.batch.bytes),
            entities: like(&self.batch.entities),
            relationships: like(&self.batch.relationships),
        };
        Some(self.seal(next))
    }

    /// Takes what there is, if there is anything.
    pub fn take(&mut self) -> Option<Arc<Batch>> {
        (self.batch.size() > 0).then(|| self.seal(Batch::default()))
    }

    fn seal(&mut self, next: Batch) -> Arc<Batch> {
        let mut batch = std::mem::replace(&mut self.batch, next);
        trim(&mut batch.bytes);
        trim(&mut batch.entities);
        trim(&mut batch.relationships);
        Arc::new(batch)
    }
}

fn like<T>(filled: &[T]) -> Vec<T> {
    Vec::with_capacity(filled.len() + filled.len() / 32)
}

/// Gives back memory that is not used, if it is enough to pay for the copy.
fn trim<T>(items: &mut Vec<T>) {
    if items.capacity() - items.len() > items.len() / 8 {
        items.shrink_to_fit();
    }
}

/// One emission of a step.
#[derive(Clone, Copy, Debug)]
pub struct EmissionRef<'a> {
    /// The record's id.
    pub id: [u8; 16],
    /// The scope it was emitted in, as a place in [`StepReport::scopes`](crate::StepReport::scopes).
    pub scope: Option<u32>,
    /// The record's canonical bytes; `None` if it was rejected.
    pub content: Option<&'a [u8]>,
}

impl<'a> EmissionRef<'a> {
    /// Returns the type of the entity or the verb of the relationship; empty if it was rejected.
    pub fn name(self) -> &'a str {
        self.read_name().unwrap_or_default()
    }

    fn read_name(self) -> Option<&'a str> {
        let mut reader = Reader(self.content?);
        // After the kind, both kinds begin with it.
        reader.byte()?;
        reader.str()
    }

    /// Reads the emission as an entity, if that is what it is and it was accepted.
    pub fn entity(self) -> Option<EntityRef<'a>> {
        EntityRef::decode(EntityId::from_bytes(self.id), self.content?)
    }

    /// Reads the emission as a relationship, if that is what it is and it was accepted.
    pub fn relationship(self) -> Option<RelationshipRef<'a>> {
        RelationshipRef::decode(RelationshipId::from_bytes(self.id), self.content?)
    }
}

/// An emitted entity.
#[derive(Clone, Copy)]
pub struct EntityRef<'a> {
    id: EntityId,
    entity_type: &'a str,
    namespace: NamespaceRef<'a>,
    key: &'a str,
    class: Option<&'a str>,
    display_name: Option<&'a str>,
    properties: PropertiesRef<'a>,
}

#[derive(Clone, Copy)]
enum NamespaceRef<'a> {
    Account,
    InAccount(&'a str),
    Global,
}

impl<'a> EntityRef<'a> {
    fn decode(id: EntityId, content: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(content);
        reader.byte().filter(|kind| *kind == ENTITY)?;
        Some(Self {
            id,
            entity_type: reader.str()?,
            namespace: match reader.byte()? {
                b'i' => NamespaceRef::InAccount(reader.str()?),
                b'g' => NamespaceRef::Global,
                _ => NamespaceRef::Account,
            },
            key: reader.str()?,
            class: reader.option()?,
            display_name: reader.option()?,
            properties: PropertiesRef(reader),
        })
    }

    /// Returns the id.
    pub fn id(&self) -> EntityId {
        self.id
    }

    /// Returns the type.
    pub fn entity_type(&self) -> &'a str {
        self.entity_type
    }

    /// Returns the key.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// Returns the class.
    pub fn class(&self) -> Option<&'a str> {
        self.class
    }

    /// Returns the name that people know it by.
    pub fn display_name(&self) -> Option<&'a str> {
        self.display_name
    }

    /// Returns the properties, sorted by name.
    pub fn properties(&self) -> PropertiesRef<'a> {
        self.properties
    }

    /// Returns the value of one property.
    pub fn property(&self, name: &str) -> Option<ValueRef<'a>> {
        let mut properties = self.properties;
        properties
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }
}

impl From<EntityRef<'_>> for EntityKey {
    fn from(entity: EntityRef<'_>) -> Self {
        Self {
            namespace: match entity.namespace {
                NamespaceRef::Account => Namespace::Account,
                NamespaceRef::InAccount(account) => Namespace::InAccount(account.to_owned()),
                NamespaceRef::Global => Namespace::Global,
            },
            entity_type: entity.entity_type.to_owned().into(),
            key: entity.key.to_owned(),
        }
    }
}

impl fmt::Debug for EntityRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntityRef")
            .field("type", &self.entity_type)
            .field("key", &self.key)
            .field("class", &self.class)
            .field("display_name", &self.display_name)
            .field("properties", &self.properties)
            .finish()
    }
}

/// An emitted relationship.
#[derive(Clone, Copy)]
pub struct RelationshipRef<'a> {
    id: RelationshipId,
    verb: &'a str,
    from: EndRef<'a>,
    to: EndRef<'a>,
    key: Option<&'a str>,
    properties: PropertiesRef<'a>,
}

/// One end of an emitted relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRef<'a> {
    /// The id of the entity.
    pub id: EntityId,
    /// The type of the entity.
    pub entity_type: &'a str,
    /// The key of the entity.
    pub key: &'a str,
}

impl<'a> EndRef<'a> {
    fn decode(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            id: EntityId::from_bytes(reader.array()?),
            entity_type: reader.str()?,
            key: reader.str()?,
        })
    }
}

impl<'a> RelationshipRef<'a> {
    fn decode(id: RelationshipId, content: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(content);
        reader.byte().filter(|kind| *kind == RELATIONSHIP)?;
        Some(Self {
            id,
            verb: reader.str()?,
            from: EndRef::decode(&mut reader)?,
            to: EndRef::decode(&mut reader)?,
            key: reader.option()?,
            properties: PropertiesRef(reader),
        })
    }

    /// Returns the id.
    pub fn id(&self) -> RelationshipId {
        self.id
    }

    /// Returns the verb.
    pub fn verb(&self) -> &'a str {
        self.verb
    }

    /// Returns the entity that does.
    pub fn from(&self) -> EndRef<'a> {
        self.from
    }

    /// Returns the entity that it is done to.
    pub fn to(&self) -> EndRef<'a> {
        self.to
    }

    /// Returns what tells it from others with the same ends and verb.
    pub fn key(&self) -> Option<&'a str> {
        self.key
    }

    /// Returns the properties, sorted by name.
    pub fn properties(&self) -> PropertiesRef<'a> {
        self.properties
    }
}

impl fmt::Debug for RelationshipRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelationshipRef")
            .field("from", &self.from)
            .field("verb", &self.verb)
            .field("to", &self.to)
            .field("key", &self.key)
            .field("properties", &self.properties)
            .finish()
    }
}

/// Iterates over the properties of an emitted record, sorted by name.
#[derive(Clone, Copy)]
pub struct PropertiesRef<'a>(Reader<'a>);

impl<'a> Iterator for PropertiesRef<'a> {
    type Item = (&'a str, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.str()?, self.0.value()?))
    }
}

impl PropertiesRef<'_> {
    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

impl fmt::Debug for PropertiesRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(*self).finish()
    }
}

#[cfg(test)]
mod tests;
