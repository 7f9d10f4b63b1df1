//! What a power cut leaves of a disk.

use fastrand::Rng;

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// The files of a store; SQLite keeps the log's index in shared memory, which no power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Database,
    Wal,
    /// The rollback journal, from before the write-ahead log is turned on.
    Journal,
}

impl Name {
    pub(crate) const ALL: [Self; 3] = [Self::Database, Self::Wal, Self::Journal];

    /// What follows the store's path in the file's.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Database => "",
            Self::Wal => "-wal",
            Self::Journal => "-journal",
        }
    }
}

/// Contents of the files of a store, in the order of [`Name::ALL`]; `None` for one that is not
/// there.
pub(crate) type Files = [Option<Vec<u8>>; 3];

/// What a program did to a file.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Create,
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    Truncate {
        size: usize,
    },
    Delete,
    Sync,
    /// A sync that said it failed: the system has dropped what it could not write, and no later
    /// sync brings it back.
    FailedSync,
}

/// What is on a disk for certain, and what may be.
#[derive(Debug, Default)]
pub(crate) struct Medium {
    files: [MediumFile; 3],
}

#[derive(Debug, Default)]
struct MediumFile {
    durable: Option<Vec<u8>>,
    /// Since the last sync, in the order of the program.
    pending: Vec<Change>,
}

/// How much of what was not synced a power cut spares.
struct Fate {
    /// The chance of each sector that was written, and of each other change.
    kept: f64,
    /// The chance that a sector which was being written holds neither the old nor the new.
    garbage: f64,
    /// How many sectors and other changes got to the disk before the power went; the rest did not.
    reached: usize,
}

impl Medium {
    pub(crate) fn apply(&mut self, name: Name, change: &Change, rng: &mut Rng) {
        let file = &mut self.files[name as usize];
        match change {
            Change::Sync => file.settle(&mut Fate::all(), rng),
            Change::FailedSync => file.settle(&mut Fate::random(rng, file.pieces()), rng),
            // SQLite deletes a journal to commit, and asks for the directory to be synced.
            Change::Delete if name == Name::Journal => *file = MediumFile::default(),
            change => file.pending.push(change.clone()),
        }
    }

    /// Returns what a power cut leaves now: all that was synced, and of the rest what chance
    /// decides.
    pub(crate) fn image(&self, rng: &mut Rng) -> Files {
        // One fate for all files: how far the disk got is a matter of time.
        let pieces = self.files.iter().map(MediumFile::pieces).sum();
        self.survivors(&mut Fate::random(rng, pieces), rng)
    }

    /// Returns what a power cut leaves at the worst: what was synced, and nothing else.
    pub(crate) fn synced(&self) -> Files {
        self.survivors(&mut Fate::none(), &mut Rng::with_seed(0))
    }

    /// Whether a power cut could leave different images now.
    pub(crate) fn is_settled(&self) -> bool {
        self.files.iter().all(|file| file.pending.is_empty())
    }

    fn survivors(&self, fate: &mut Fate, rng: &mut Rng) -> Files {
        self.files.each_ref().map(|file| file.survivor(fate, rng))
    }
}

impl MediumFile {
    fn settle(&mut self, fate: &mut Fate, rng: &mut Rng) {
        self.durable = self.survivor(fate, rng);
        self.pending.clear();
    }

    /// Counts the decisions of a fate.
    fn pieces(&self) -> usize {
        let pieces = self.pending.iter().map(|change| match change {
            Change::Write { offset, data } => sectors(*offset, data).count(),
            _ => 1,
        });
        pieces.sum()
    }

    fn survivor(&self, fate: &mut Fate, rng: &mut Rng) -> Option<Vec<u8>> {
        let mut content = self.durable.clone();
        // A file that was not created in the end takes what was written to it along, also where an
        // older one of that name is still there.
        let mut is_created = true;
        for change in &self.pending {
            match change {
                Change::Create => {
                    is_created = fate.spares(rng);
                    if is_created {
                        content = Some(Vec::new());
                    }
                }
                Change::Delete => {
                    if fate.spares(rng) {
                        content = None;
                    }
                }
                Change::Truncate { size } => {
                    if fate.spares(rng) && is_created {
                        content.get_or_insert_default().resize(*size, 0);
                    }
                }
                Change::Write { offset, data } => {
                    for (start, sector) in sectors(*offset, data) {
                        if fate.spares(rng) && is_created {
                            let content = content.get_or_insert_default();
                            let end = start + sector.len();
                            if content.len() < end {
                                content.resize(end, 0);
                            }
                            if rng.f64() < fate.garbage {
                                rng.fill(&mut content[start..end]);
                            } else {
                                content[start..end].copy_from_slice(sector);
                            }
                        }
                    }
                }
                Change::Sync | Change::FailedSync => {}
            }
        }
        content
    }
}

impl Fate {
    fn all() -> Self {
        Self {
            kept: 1.0,
            garbage: 0.0,
            reached: usize::MAX,
        }
    }

    fn none() -> Self {
        Self {
            kept: 0.0,
            ..Self::all()
        }
    }

    fn random(rng: &mut Rng, pieces: usize) -> Self {
        let garbage = if rng.u8(..4) == 0 {
            rng.f64() * 0.2
        } else {
            0.0
        };
        match rng.u8(..8) {
            0 => Self::none(),
            1 => Self {
                garbage,
                ..Self::all()
            },
            // In order, up to where the power went.
            2..4 => Self {
                reached: rng.usize(..=pieces),
                garbage,
                ..Self::all()
            },
            // In any order.
            4..6 => Self {
                kept: rng.f64(),
                garbage,
                ..Self::all()
            },
            // Nearly all: one or two lost sectors show what a checksum is for.
            6 => Self {
                kept: 1.0 - 2.0 / (pieces as f64 + 2.0),
                ..Self::all()
            },
            _ => Self {
                kept: 2.0 / (pieces as f64 + 2.0),
                ..Self::all()
            },
        }
    }

    fn spares(&mut self, rng: &mut Rng) -> bool {
        let is_reached = self.reached > 0;
        self.reached = self.reached.saturating_sub(1);
        is_reached && (self.kept >= 1.0 || rng.f64() < self.kept)
    }
}

/// Cuts a write at the borders of sectors.
fn sectors(offset: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR - offset % SECTOR).min(data.len());
    let (head, rest) = data.split_at(first);
    let rest = rest
        .chunks(SECTOR)
        .enumerate()
        .map(move |(number, sector)| (offset + first + number * SECTOR, sector));
    std::iter::once((offset, head)).chain(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: usize, byte: u8, len: usize) -> Change {
        Change::Write {
            offset,
            data: vec![byte; len],
        }
    }

    fn medium(changes: &[Change]) -> Medium {
        let mut medium = Medium::default();
        let mut rng = Rng::with_seed(1);
        for change in changes {
            medium.apply(Name::Wal, change, &mut rng);
        }
        medium
    }

    /// Every image of the log that shows up in many power cuts, sector by sector.
    fn images(medium: &Medium) -> Vec<String> {
        let mut rng = Rng::with_seed(7);
        let mut images: Vec<String> = (0..4_000)
            .map(|_| match &medium.image(&mut rng)[Name::Wal as usize] {
                None => "-".to_owned(),
                Some(content) => content
                    .chunks(SECTOR)
                    .map(
                        |sector| match sector.iter().all(|byte| *byte == sector[0]) {
                            true => char::from(sector[0].max(b'0')),
                            false => '?',
                        },
                    )
                    .collect(),
            })
            .collect();
        images.sort_unstable();
        images.dedup();
        images
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_may_be_lost_torn_or_reordered() {
        let changes = [
            Change::Create,
            write(0, b'a', 2 * SECTOR),
            Change::Sync,
            write(SECTOR, b'b', 2 * SECTOR),
        ];
        let medium = medium(&changes);
        // `?` is garbage in a sector that was being written.
        assert_eq!(
            images(&medium),
            ["a?", "a??", "a?b", "aa", "aa?", "aab", "ab", "ab?", "abb"]
        );
        assert_eq!(
            medium.synced()[Name::Wal as usize],
            Some(vec![b'a'; 2 * SECTOR])
        );
        assert!(!medium.is_settled());
    }

    #[test]
    fn lost_sector_before_one_that_was_written_reads_as_zeros() {
        let changes = [Change::Create, Change::Sync, write(0, b'a', 2 * SECTOR)];
        assert!(images(&medium(&changes)).contains(&"0a".to_owned()));
    }

    #[test]
    fn file_that_was_not_created_in_the_end_has_nothing_in_it() {
        let old = [Change::Create, write(0, b'a', 8), Change::Sync];
        let new = [Change::Delete, Change::Create, write(0, b'b', 8)];
        let images = images(&medium(&[&old[..], &new].concat()));
        assert_eq!(images, ["", "-", "?", "a", "b"]);
    }

    #[test]
    fn sync_brings_nothing_back_that_a_failed_sync_dropped() {
        let changes = [
            Change::Create,
            Change::Sync,
            write(0, b'a', 40 * SECTOR),
            Change::FailedSync,
            Change::Sync,
        ];
        let medium = medium(&changes);
        assert!(medium.is_settled());
        let durable = medium.synced()[Name::Wal as usize].clone().unwrap();
        assert!(
            durable.len() < 40 * SECTOR || durable.contains(&0),
            "{}",
            durable.len()
        );
    }

    #[test]
    fn write_is_cut_where_sectors_begin() {
        let data = vec![1; 1_200];
        let cut: Vec<(usize, usize)> = sectors(500, &data)
            .map(|(start, sector)| (start, sector.len()))
            .collect();
        assert_eq!(cut, [(500, 12), (512, 512), (1_024, 512), (1_536, 164)]);
        let small: Vec<(usize, usize)> = sectors(24, &data[..8])
            .map(|(start, sector)| (start, sector.len()))
            .collect();
        assert_eq!(small, [(24, 8)]);
    }
}
