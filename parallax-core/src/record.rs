use std::borrow::Cow;

use crate::encode::{ENTITY, RELATIONSHIP, put_option, put_str, put_value};
use crate::error::Rejection;
use crate::id::{EntityId, EntityKey, Namespace, RelationshipId};
use crate::text::{excerpt, is_plain_name};
use crate::value::Value;

/// Longest key and longest display name, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest type, class, verb and property name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Largest property value, in bytes; a number counts as 8.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Largest record: the names and values of all its properties, in bytes.
pub const MAX_ENTITY_BYTES: usize = 4 << 20;
/// More characters of a hostile text are not repeated.
const EXCERPT_CHARS: usize = 64;

/// Starts an entity of a type (`snake_case`) and a key that is unique within the type.
///
/// ```
/// use parallax_core::entity;
///
/// let user = entity("okta_user", 4711).class("User").property("mfa", true);
/// assert_eq!(user.key().key(), "4711");
/// ```
pub fn entity(entity_type: impl Into<Cow<'static, str>>, key: impl ToString) -> Entity {
    Entity {
        key: EntityKey::new(entity_type, key),
        class: None,
        display_name: None,
        // Most have some; one allocation is cheaper than two.
        properties: Vec::with_capacity(8),
    }
}

/// Starts a relationship: `from` does `verb` (`SCREAMING_SNAKE`) to `to`.
///
/// The ends are named, not looked up: they may be emitted later, by another step, or by another
/// connector. Until both exist, the relationship waits and is not shown.
///
/// ```
/// use parallax_core::relationship;
///
/// let member = relationship(("okta_user", "alice"), "MEMBER_OF", ("okta_group", "admins"));
/// # let _ = member;
/// ```
pub fn relationship(
    from: impl Into<EntityKey>,
    verb: impl Into<Cow<'static, str>>,
    to: impl Into<EntityKey>,
) -> Relationship {
    Relationship {
        from: from.into(),
        verb: verb.into(),
        to: to.into(),
        key: None,
        properties: Vec::new(),
    }
}

/// A thing that was found in an outside system.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "only what is emitted counts"]
pub struct Entity {
    key: EntityKey,
    class: Option<Cow<'static, str>>,
    display_name: Option<String>,
    properties: Vec<(Cow<'static, str>, Value)>,
}

impl Entity {
    /// Sets the class: what the type is a case of, across systems (`PascalCase`, as `User`).
    pub fn class(mut self, class: impl Into<Cow<'static, str>>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Sets the name that people know it by; without one its key is shown.
    pub fn display_name(mut self, name: impl Into<String>) -> Self {
        self.display_name = Some(name.into());
        self
    }

    /// Sets a property; the last value of a name counts.
    pub fn property(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Moves the key into the key space of another account.
    pub fn in_account(mut self, account_id: impl Into<String>) -> Self {
        self.key = self.key.in_account(account_id);
        self
    }

    /// Makes the key one that is unique across all accounts.
    pub fn global(mut self) -> Self {
        self.key = self.key.global();
        self
    }

    /// Returns what names the entity: type, key and namespace.
    pub fn key(&self) -> &EntityKey {
        &self.key
    }

    pub(crate) fn check_id(&self) -> Result<(), Rejection> {
        check_key(&self.key)
    }

    /// Sorts the properties and checks all but the id.
    pub(crate) fn check(&mut self) -> Result<(), Rejection> {
        if let Some(class) = self.class.as_deref()
            && !is_pascal_case(class)
        {
            return Err(Rejection::InvalidClass(excerpt(class, EXCERPT_CHARS)));
        }
        if let Some(name) = &self.display_name
            && name.len() > MAX_KEY_BYTES
        {
            return Err(Rejection::DisplayNameTooLong(name.len()));
        }
        check_properties(&mut self.properties)
    }

    /// Writes the canonical bytes of an entity that was checked.
    pub(crate) fn put(&self, account_id: &str, out: &mut Vec<u8>) {
        out.push(ENTITY);
        put_str(out, &self.key.entity_type);
        match &self.key.namespace {
            // One entity has one form: the account of the sync may be named, or go without saying.
            Namespace::InAccount(other) if other != account_id => {
                out.push(b'i');
                put_str(out, other);
            }
            Namespace::Account | Namespace::InAccount(_) => out.push(b'a'),
            Namespace::Global => out.push(b'g'),
        }
        put_str(out, &self.key.key);
        put_option(out, self.class.as_deref());
        put_option(out, self.display_name.as_deref());
        put_properties(out, &self.properties);
    }
}

impl From<&Entity> for EntityKey {
    fn from(entity: &Entity) -> Self {
        entity.key.clone()
    }
}

/// A directed connection between two entities.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "only what is emitted counts"]
pub struct Relationship {
    from: EntityKey,
    verb: Cow<'static, str>,
    to: EntityKey,
    key: Option<String>,
    properties: Vec<(Cow<'static, str>, Value)>,
}

impl Relationship {
    /// Tells it from others with the same ends and verb.
    pub fn key(mut self, key: impl ToString) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Sets a property; the last value of a name counts.
    pub fn property(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Returns the verb.
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// Returns the entity that does.
    pub fn from(&self) -> &EntityKey {
        &self.from
    }

    /// Returns the entity that it is done to.
    pub fn to(&self) -> &EntityKey {
        &self.to
    }

    pub(crate) fn check_id(&self) -> Result<(), Rejection> {
        if !is_screaming_snake_case(&self.verb) {
            return Err(Rejection::InvalidVerb(excerpt(&self.verb, EXCERPT_CHARS)));
        }
        check_key(&self.from)?;
        check_key(&self.to)?;
        self.key.as_deref().map_or(Ok(()), check_key_text)
    }

    /// Returns the ids of its ends and its own; writes to the end of `scratch`, and leaves nothing.
    pub(crate) fn ids(
        &self,
        account_id: &str,
        scratch: &mut Vec<u8>,
    ) -> (EntityId, EntityId, RelationshipId) {
        let from = self.from.id_by(account_id, scratch);
        let to = self.to.id_by(account_id, scratch);
        let id = RelationshipId::of(from, &self.verb, to, self.key.as_deref(), scratch);
        (from, to, id)
    }

    /// Sorts the properties and checks all but the id.
    pub(crate) fn check(&mut self) -> Result<(), Rejection> {
        check_properties(&mut self.properties)
    }

    /// Writes the canonical bytes of a relationship that was checked.
    pub(crate) fn put(&self, from: EntityId, to: EntityId, out: &mut Vec<u8>) {
        out.push(RELATIONSHIP);
        put_str(out, &self.verb);
        for (id, key) in [(from, &self.from), (to, &self.to)] {
            out.extend_from_slice(&id.to_bytes());
            put_str(out, &key.entity_type);
            put_str(out, &key.key);
        }
        put_option(out, self.key.as_deref());
        put_properties(out, &self.properties);
    }
}

/// An entity or a relationship.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// An entity.
    Entity(Entity),
    /// A relationship.
    Relationship(Relationship),
}

impl From<Entity> for Record {
    fn from(entity: Entity) -> Self {
        Self::Entity(entity)
    }
}

impl From<Relationship> for Record {
    fn from(relationship: Relationship) -> Self {
        Self::Relationship(relationship)
    }
}

impl Record {
    /// Names the record for a person, in one line: `okta_user "alice"`.
    pub fn describe(&self) -> String {
        match self {
            Self::Entity(entity) => describe(&entity.key),
            Self::Relationship(relationship) => format!(
                "{} {} {}",
                describe(&relationship.from),
                excerpt(&relationship.verb, EXCERPT_CHARS),
                describe(&relationship.to)
            ),
        }
    }
}

fn describe(key: &EntityKey) -> String {
    format!(
        "{} \"{}\"",
        excerpt(&key.entity_type, EXCERPT_CHARS),
        excerpt(&key.key, EXCERPT_CHARS)
    )
}

fn put_properties(out: &mut Vec<u8>, properties: &[(Cow<'static, str>, Value)]) {
    for (name, value) in properties {
        put_str(out, name);
        put_value(out, value);
    }
}

/// Sorts properties by name, leaves the last of each name, and checks them, before a byte is
/// copied: a value may be larger than the memory that is left.
fn check_properties(properties: &mut Vec<(Cow<'static, str>, Value)>) -> Result<(), Rejection> {
    // Many connectors name them in order anyway.
    if !properties.is_sorted_by(|(a, _), (b, _)| a < b) {
        // Stable, so that of two values of one name the last stays the last. By the first byte
        // first: most names differ in it, and it is compared faster than a text.
        properties.sort_by(|(a, _), (b, _)| {
            let [first_of_a, first_of_b] = [a, b].map(|name| name.as_bytes().first());
            first_of_a.cmp(&first_of_b).then_with(|| a.cmp(b))
        });
        properties.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
    }
    let mut bytes = 0;
    for (name, value) in properties {
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || has_control(name) {
            let name = excerpt(name, EXCERPT_CHARS);
            return Err(Rejection::InvalidPropertyName(name));
        }
        bytes += name.len() + check_value(name, value)?;
    }
    if bytes > MAX_ENTITY_BYTES {
        return Err(Rejection::RecordTooLarge(bytes));
    }
    Ok(())
}

/// Returns the size of a value that can be accepted.
fn check_value(name: &str, value: &Value) -> Result<usize, Rejection> {
    let property = || excerpt(name, EXCERPT_CHARS);
    let values = match value {
        Value::List(values) => values,
        value => std::slice::from_ref(value),
    };
    for value in values {
        match value {
            Value::Float(number) if !number.is_finite() => {
                return Err(Rejection::NotFinite {
                    property: property(),
                });
            }
            Value::List(_) => {
                return Err(Rejection::NestedList {
                    property: property(),
                });
            }
            _ => {}
        }
    }
    let bytes = value.size();
    if bytes > MAX_VALUE_BYTES {
        return Err(Rejection::ValueTooLarge {
            property: property(),
            bytes,
        });
    }
    Ok(bytes)
}

fn check_key(key: &EntityKey) -> Result<(), Rejection> {
    if !is_snake_case(&key.entity_type) {
        let entity_type = excerpt(&key.entity_type, EXCERPT_CHARS);
        return Err(Rejection::InvalidType(entity_type));
    }
    if let Namespace::InAccount(account) = &key.namespace
        && !is_plain_name(account)
    {
        return Err(Rejection::InvalidAccount(excerpt(account, EXCERPT_CHARS)));
    }
    check_key_text(&key.key)
}

fn check_key_text(key: &str) -> Result<(), Rejection> {
    if key.is_empty() {
        Err(Rejection::EmptyKey)
    } else if key.len() > MAX_KEY_BYTES {
        Err(Rejection::KeyTooLong(key.len()))
    } else if has_control(key) {
        Err(Rejection::ControlInKey(excerpt(key, EXCERPT_CHARS)))
    } else {
        Ok(())
    }
}

fn has_control(text: &str) -> bool {
    // Nearly every text is plain ASCII, which is seen many bytes at a time.
    let plain = |yes, byte| yes & matches!(byte, b' '..=b'~');
    !text.bytes().fold(true, plain) && text.chars().any(char::is_control)
}

fn is_snake_case(text: &str) -> bool {
    has_form(text, char::is_ascii_lowercase, |c| *c == '_')
}

fn is_screaming_snake_case(text: &str) -> bool {
    has_form(text, char::is_ascii_uppercase, |c| *c == '_')
}

fn is_pascal_case(text: &str) -> bool {
    has_form(text, char::is_ascii_uppercase, char::is_ascii_lowercase)
}

/// Tells whether `text` begins with a `first`, and goes on with them, digits and `other`s.
fn has_form(text: &str, first: fn(&char) -> bool, other: fn(&char) -> bool) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|c| first(&c))
        && text
            .chars()
            .all(|c| first(&c) || c.is_ascii_digit() || other(&c))
}
