use std::borrow::Cow;
use std::fmt;

use crate::encode::put_bytes;

/// Identity of an entity: a 128-bit hash of (namespace, type, key).
///
/// Two sources that emit the same (namespace, type, key) speak of the same entity. The hash is
/// BLAKE3 over length-prefixed parts, cut to 16 bytes, so no choice of characters in one part can
/// imitate another. Displayed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId([u8; 16]);

/// Identity of a relationship: a 128-bit hash of (from, verb, to, key).
///
/// Displayed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationshipId([u8; 16]);

macro_rules! id_methods {
    ($id:ident) => {
        impl $id {
            /// Returns the id as its 16 bytes; they sort as the id sorts.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// Makes an id of 16 bytes that [`to_bytes`](Self::to_bytes) returned.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self)
            }
        }
    };
}

id_methods!(EntityId);
id_methods!(RelationshipId);

/// Whose key space an entity's key belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Namespace {
    /// The account that the sync reads.
    #[default]
    Account,
    /// Another account, named.
    InAccount(String),
    /// No account: the key is unique in the world, as a public DNS name is.
    Global,
}

/// Names an entity: its type, its key, and whose key space the key belongs to.
///
/// A `(type, key)` pair converts into one in the namespace of the sync's account.
///
/// ```
/// use parallax_core::{EntityKey, relationship};
///
/// let cross_account = relationship(
///     ("aws_role", "deploy"),
///     "TRUSTS",
///     EntityKey::new("aws_account", "222222222222").global(),
/// );
/// # let _ = cross_account;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntityKey {
    pub(crate) namespace: Namespace,
    pub(crate) entity_type: Cow<'static, str>,
    pub(crate) key: String,
}

impl EntityKey {
    /// Names the entity of `entity_type` and `key` in the account that the sync reads.
    pub fn new(entity_type: impl Into<Cow<'static, str>>, key: impl ToString) -> Self {
        Self {
            namespace: Namespace::Account,
            entity_type: entity_type.into(),
            key: key.to_string(),
        }
    }

    /// Moves the key into the key space of another account.
    #[must_use]
    pub fn in_account(mut self, account_id: impl Into<String>) -> Self {
        self.namespace = Namespace::InAccount(account_id.into());
        self
    }

    /// Makes the key one that is unique across all accounts.
    #[must_use]
    pub fn global(mut self) -> Self {
        self.namespace = Namespace::Global;
        self
    }

    /// Returns the type.
    pub fn entity_type(&self) -> &str {
        &self.entity_type
    }

    /// Returns the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the id of the named entity in a sync of `account_id`.
    pub fn id(&self, account_id: &str) -> EntityId {
        self.id_by(account_id, &mut Vec::new())
    }

    /// As [`id`](Self::id); writes to the end of `scratch`, and leaves nothing.
    pub(crate) fn id_by(&self, account_id: &str, scratch: &mut Vec<u8>) -> EntityId {
        let (tag, namespace) = match &self.namespace {
            Namespace::Account => (b"ea", account_id),
            Namespace::InAccount(other) => (b"ea", other.as_str()),
            Namespace::Global => (b"eg", ""),
        };
        let [entity_type, key] = [self.entity_type.as_bytes(), self.key.as_bytes()];
        EntityId(digest(
            scratch,
            &[tag, namespace.as_bytes(), entity_type, key],
        ))
    }
}

impl<T: Into<Cow<'static, str>>, K: ToString> From<(T, K)> for EntityKey {
    fn from((entity_type, key): (T, K)) -> Self {
        Self::new(entity_type, key)
    }
}

impl From<&EntityKey> for EntityKey {
    fn from(key: &EntityKey) -> Self {
        key.clone()
    }
}

impl RelationshipId {
    pub(crate) fn of(
        from: EntityId,
        verb: &str,
        to: EntityId,
        key: Option<&str>,
        scratch: &mut Vec<u8>,
    ) -> Self {
        let (tag, key) = match key {
            Some(key) => (b"rk", key),
            None => (b"r-", ""),
        };
        let parts: [&[u8]; 5] = [tag, &from.0, verb.as_bytes(), &to.0, key.as_bytes()];
        Self(digest(scratch, &parts))
    }
}

fn digest(scratch: &mut Vec<u8>, parts: &[&[u8]]) -> [u8; 16] {
    // Joined first: one short piece hashes much faster than many shorter ones.
    let start = scratch.len();
    for part in parts {
        put_bytes(scratch, part);
    }
    let hash = blake3::hash(scratch.get(start..).unwrap_or_default());
    scratch.truncate(start);
    let mut id = [0; 16];
    id.copy_from_slice(hash.as_bytes().split_at(16).0);
    id
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_cannot_imitate_each_other() {
        let id = |entity_type: &'static str, key: &str| EntityKey::new(entity_type, key).id("1");
        assert_ne!(id("a", "bc"), id("ab", "c"));
        assert_ne!(id("a", "b\0c"), id("a\0b", "c"));
        assert_ne!(id("a", ""), id("", "a"));
    }

    #[test]
    fn a_key_belongs_to_its_account() {
        let key = EntityKey::new("host", "web-1");
        assert_ne!(key.id("111"), key.id("222"));
        assert_eq!(key.clone().in_account("222").id("111"), key.id("222"));
        assert_eq!(
            key.clone().global().id("111"),
            key.clone().global().id("222")
        );
        assert_ne!(key.clone().global().id(""), key.id(""));
    }

    #[test]
    fn a_relationship_has_ends_a_verb_and_perhaps_a_key() {
        let [a, b] = ["a", "b"].map(|key| EntityKey::new("host", key).id("1"));
        let ids: HashSet<_> = [
            (a, "RUNS", b, None),
            (b, "RUNS", a, None),
            (a, "OWNS", b, None),
            (a, "RUNS", b, Some("")),
            (a, "RUNS", b, Some("80")),
        ]
        .map(|(from, verb, to, key)| RelationshipId::of(from, verb, to, key, &mut Vec::new()))
        .into();
        assert_eq!(ids.len(), 5);
    }

    #[test]
    fn ids_never_change() {
        // Stored for years: a change here is a change of every record's identity.
        let user = EntityKey::new("okta_user", "alice");
        let group = EntityKey::new("okta_group", "admins");
        let ends = [&user, &group].map(|key| key.id("acme"));
        let member = RelationshipId::of(ends[0], "MEMBER_OF", ends[1], None, &mut Vec::new());
        let shown = [
            user.id("acme").to_string(),
            user.global().id("acme").to_string(),
            member.to_string(),
        ];
        let known = [
            "e7de7c000860be1e861176c7d66d2eed",
            "470d3930189dd12b28f848b05620b892",
            "30fc6028323a50a0ca248e941b01ccf5",
        ];
        assert_eq!(shown, known);
    }

    #[test]
    fn an_id_is_the_beginning_of_a_blake3_hash() {
        // What another program must do to know an id.
        let bytes = b"\x02ea\x04acme\x09okta_user\x05alice";
        let hash = blake3::hash(bytes).to_hex();
        let id = EntityKey::new("okta_user", "alice").id("acme");
        assert_eq!(id.to_string(), hash[..32]);
        // Lengths above 127 go seven bits a byte, lowest first.
        let long = "k".repeat(300);
        let bytes = [b"\x02eg\0\x01t\xac\x02", long.as_bytes()].concat();
        let id = EntityKey::new("t", long).global().id("acme");
        assert_eq!(id.to_string(), blake3::hash(&bytes).to_hex()[..32]);
    }

    proptest! {
        #[test]
        fn only_the_same_parts_have_the_same_id(
            a in prop::array::uniform3("[a\\x00-\\x04]{0,3}"),
            b in prop::array::uniform3("[a\\x00-\\x04]{0,3}"),
        ) {
            let id = |[account, entity_type, key]: &[String; 3]| {
                EntityKey::new(entity_type.clone(), key).id(account)
            };
            prop_assert_eq!(id(&a) == id(&b), a == b);
        }

        #[test]
        fn an_id_sorts_as_its_bytes(a: [u8; 16], b: [u8; 16]) {
            let ids = [a, b].map(EntityId::from_bytes);
            prop_assert_eq!(ids.map(EntityId::to_bytes), [a, b]);
            prop_assert_eq!(ids[0].cmp(&ids[1]), a.cmp(&b));
            prop_assert_eq!(
                ids[0].to_string().cmp(&ids[1].to_string()),
                a.cmp(&b)
            );
        }
    }
}
