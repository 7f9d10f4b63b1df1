use std::fmt;
use std::str::FromStr;

use parallax_core::Timestamp;

/// What is asked about: an entity or a relationship.
///
/// Parsed as people write it: `host_package:bash` is the type and the key, which begins after the
/// first colon and may hold more of them; 32 hexadecimal digits are an id, as in the views.
///
/// ```
/// use parallax_store::Subject;
///
/// let named: Subject = "host_address:eth0:fd00::2/64".parse()?;
/// let by_id: Subject = "000d23b4e434bf1cb5215344924e7e27".parse()?;
/// assert_eq!(named.to_string(), "host_address:eth0:fd00::2/64");
/// # let _ = by_id;
/// # Ok::<(), parallax_store::SubjectError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The entity or relationship with this id.
    Id([u8; 16]),
    /// Every entity of this type and key: accounts have key spaces of their own, so there may be
    /// several.
    Entity {
        /// The type.
        entity_type: String,
        /// The key.
        key: String,
    },
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if let Some((entity_type, key)) = text.split_once(':') {
            if entity_type.is_empty() || key.is_empty() {
                return Err(SubjectError);
            }
            return Ok(Self::Entity {
                entity_type: entity_type.to_owned(),
                key: key.to_owned(),
            });
        }
        let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(id) if is_id => Ok(Self::Id(id.to_be_bytes())),
            _ => Err(SubjectError),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{:032x}", u128::from_be_bytes(*id)),
            Self::Entity { entity_type, key } => write!(f, "{entity_type}:{key}"),
        }
    }
}

/// Neither `TYPE:KEY` nor an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither TYPE:KEY nor an id of 32 hexadecimal digits")]
pub struct SubjectError;

/// What is known of a record, and why it is there or gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// What it is.
    pub record: RecordName,
    /// Every source that has it or, as far as the history goes back, had it; by connector, then
    /// account.
    pub sources: Vec<InSource>,
}

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordName {
    /// An entity.
    Entity(EntityName),
    /// A relationship. It is shown while both ends live, and waits unseen while one does not.
    Relationship {
        /// Where it begins.
        from: End,
        /// What it says.
        verb: String,
        /// Where it ends.
        to: End,
        /// What tells it from others between the same ends.
        key: Option<String>,
    },
}

/// How an entity is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityName {
    /// Its type.
    pub entity_type: String,
    /// Its key.
    pub key: String,
    /// The name that people know it by; its key if it has none.
    pub display_name: String,
}

/// An end of a relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The entity's id: 32 hexadecimal digits.
    pub id: String,
    /// The entity, if it is stored or in the history.
    pub entity: Option<EntityName>,
    /// Whether some source has it.
    pub is_live: bool,
}

/// What one source knows of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct InSource {
    /// The connector.
    pub connector_id: String,
    /// The account.
    pub account_id: String,
    /// Whether it has the record, and why.
    pub state: State,
    /// The claims on the record, by step and scope; none on one that is gone, whose
    /// [`Deletion`] has them.
    pub claims: Vec<Claim>,
    /// The sync that created it.
    pub created: Option<SyncRef>,
    /// The sync that changed its content last; the one that created it if none did.
    pub changed: Option<SyncRef>,
    /// When it was seen last, as far as that is known; nothing for one that was not found since.
    pub confirmed: Option<Confirmation>,
    /// The source's last sync if it failed: it looked at nothing.
    pub failed_since: Option<SyncRef>,
}

/// What has become of a record in a source.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The last sync that did not fail saw it.
    Live,
    /// It is not known to have been seen by the last sync that did not fail, and stays because some
    /// claim could not be checked.
    Kept {
        /// Whether it may have been seen, as a step of its claims saw a part of what there is.
        perhaps_seen: bool,
    },
    /// It was not found, and its delete waits for somebody's word.
    Held {
        /// The changeset that holds it.
        changeset: u64,
        /// The sync that held it.
        by: Option<SyncRef>,
        /// Why.
        reason: String,
    },
    /// It was not found, and its delete was refused: it stays until it is seen again.
    Pinned {
        /// The changeset that was rejected.
        changeset: u64,
        /// When.
        at: Option<Timestamp>,
    },
    /// It was deleted.
    Gone(Deletion),
}

/// The last sync that is known to have seen a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirmation {
    /// The sync.
    pub sync: SyncRef,
    /// Whose steps saw it; nobody where that is not known, as of a record of several claims that
    /// was changed then.
    pub claims: Vec<ClaimName>,
}

/// How a record was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    /// The sync, or the approval, that deleted it.
    pub sync: Option<SyncRef>,
    /// The claims that it had. Each of their steps looked everywhere and did not find it, or is no
    /// longer declared, which takes an approval.
    pub claims: Vec<ClaimName>,
    /// The changeset by whose approval it was deleted, if its delete had been held.
    pub changeset: Option<u64>,
}

/// A step and perhaps a scope, on whose word a record is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName {
    /// The step.
    pub step_id: String,
    /// The scope.
    pub scope: Option<String>,
}

/// What the source's syncs came to for a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Whose it is.
    pub name: ClaimName,
    /// The last sync that looked everywhere for what is claimed so.
    pub looked: Option<SyncRef>,
    /// The last sync that could not, if that is the newer one.
    pub missed: Option<Missed>,
}

/// A claim that could not be checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Missed {
    /// By which sync.
    pub sync: Option<SyncRef>,
    /// Why, for people.
    pub because: String,
}

/// A sync that is on record. Where one may be missing, it is too old to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRef {
    /// Its id.
    pub sync_id: String,
    /// When it was committed.
    pub committed_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_type_and_a_key_or_an_id() {
        let entity = |entity_type: &str, key: &str| {
            Ok(Subject::Entity {
                entity_type: entity_type.to_owned(),
                key: key.to_owned(),
            })
        };
        let cases = [
            ("host_package:bash", entity("host_package", "bash")),
            ("host_mount:/", entity("host_mount", "/")),
            (
                "host_socket:tcp:0.0.0.0:22",
                entity("host_socket", "tcp:0.0.0.0:22"),
            ),
            (
                "000D23b4e434bf1cb5215344924e7e27",
                Ok(Subject::Id(
                    0x000d_23b4_e434_bf1c_b521_5344_924e_7e27_u128.to_be_bytes(),
                )),
            ),
            ("000d23b4e434bf1cb5215344924e7e2", Err(SubjectError)),
            ("+00d23b4e434bf1cb5215344924e7e27", Err(SubjectError)),
            ("host_package", Err(SubjectError)),
            ("host_package:", Err(SubjectError)),
            (":bash", Err(SubjectError)),
            ("", Err(SubjectError)),
        ];
        for (text, subject) in cases {
            assert_eq!(text.parse::<Subject>(), subject, "{text:?}");
            if let Ok(subject) = subject {
                assert_eq!(subject.to_string(), text.to_lowercase());
            }
        }
    }
}
