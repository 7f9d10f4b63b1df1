use parallax_core::{RecordKind, SyncReport};
use xxhash_rust::xxh3::Xxh3;

/// Which deletes of a commit are held until somebody approves them.
///
/// Creates and updates are committed; the deletes become a numbered changeset, and what they would
/// delete stays. They are held, all of one commit together, if
///
/// - more than [`share`](Self::share) of the source's live entities would go, or of its live
///   relationships, and more than [`records`](Self::records) of them. A relationship that goes
///   with one of its ends is not counted;
/// - the last of ten records or more of one type or verb would go;
/// - a record was found by a step that the connector no longer has;
/// - the connector's version or steps have changed, until one sync has committed in which every
///   step completed.
///
/// Records of [ephemeral](parallax_core::StepReport::ephemeral) steps are on neither side of these
/// sums, and their deletes are never held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// Deletes up to this many of a kind raise no alarm by their number.
    pub records: u64,
    /// Deletes up to this share of the live records of a kind raise no alarm by their number: 0.2
    /// is a fifth.
    pub share: f64,
    /// Whether deletes are held at all.
    pub enabled: bool,
}

impl Default for Guard {
    /// More than 100 records and more than a fifth.
    fn default() -> Self {
        Self {
            records: 100,
            share: 0.2,
            enabled: true,
        }
    }
}

impl Guard {
    /// Holds nothing.
    pub const OFF: Self = Self {
        records: u64::MAX,
        share: 1.0,
        enabled: false,
    };

    /// Records of one type, the last of which raise an alarm.
    pub(crate) const TYPE: u64 = 10;

    /// Tells whether so many deletes among so many live records are too many.
    pub(crate) fn are_many(&self, deletes: u64, live: u64) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share of so many is not that exact"
        )]
        let share = live as f64 * self.share;
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let is_large_share = deletes as f64 > share;
        deletes > self.records && is_large_share
    }
}

/// Why the deletes of a commit are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    Many {
        kind: RecordKind,
        deletes: u64,
        live: u64,
    },
    LastOfType {
        name: String,
        records: u64,
    },
    StepGone(String),
    ConnectorChanged,
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Many {
                kind,
                deletes,
                live,
            } => write!(f, "{deletes} of {live} {} would go", kind.plural()),
            Self::LastOfType { name, records } => {
                write!(f, "all {records} of {name} would go")
            }
            Self::StepGone(step_id) => write!(
                f,
                "step {step_id}, which found some of them, is no longer declared"
            ),
            Self::ConnectorChanged => f.write_str(
                "the connector's version or steps have changed since the last complete sync",
            ),
        }
    }
}

/// Returns what a connector is: a hash of its version and the ids of its steps.
pub(crate) fn shape(version: &str, report: &SyncReport) -> [u8; 16] {
    let mut steps: Vec<&str> = report.steps().iter().map(|s| s.step_id.as_str()).collect();
    steps.sort_unstable();
    let mut hasher = Xxh3::new();
    for text in [version].into_iter().chain(steps) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.digest128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_is_above_both_bounds() {
        let guard = Guard::default();
        let cases = [
            (100, 100),
            (101, 100),
            (101, 505),
            (101, 504),
            (200, 1_000),
            (201, 1_000),
        ];
        let alarms = cases.map(|(deletes, live)| guard.are_many(deletes, live));
        assert_eq!(alarms, [false, true, false, true, false, true]);
        assert!(!Guard::OFF.are_many(u64::MAX, u64::MAX));
    }

    #[test]
    fn shape_is_version_and_steps_whatever_their_order() {
        let report = |ids: &[&str]| {
            let steps = ids.iter().map(|id| parallax_core::StepReport::new(*id, ""));
            SyncReport::new(steps.collect())
        };
        let ab = shape("1", &report(&["a", "b"]));
        assert_eq!(ab, shape("1", &report(&["b", "a"])));
        for other in [
            shape("2", &report(&["a", "b"])),
            shape("1", &report(&["a", "bc"])),
        ] {
            assert_ne!(ab, other);
        }
    }
}
