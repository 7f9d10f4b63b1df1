use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parallax_core::{Batch, EmissionRef, EntityRef, RecordKind, RelationshipRef};

use crate::emissions::Emitted;
use crate::error::StoreError;

/// What is kept in memory before a file is made.
const IN_MEMORY: usize = 8 << 20;

/// The contents of emitted records: in memory while they are few, then in a file that nobody else
/// can open.
#[derive(Debug)]
pub(crate) struct Contents {
    /// Where the file is made, and unlinked at once.
    directory: PathBuf,
    batches: Vec<Option<Arc<Batch>>>,
    /// Bytes of the batches.
    held: usize,
    file: Option<File>,
    length: u64,
}

/// Where the content of an emission is: the number of a batch and the place in it, or offset and
/// length in the file; of a rejected one, nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) const NOWHERE: Self = Self(u64::MAX);
    const IN_FILE: u64 = 1 << 63;
    /// A record of 4 MiB, more are rejected, takes three times that if it is a list of letters.
    const LENGTH_BITS: u32 = 24;

    fn in_batch(batch: usize, place: usize) -> Self {
        Self((batch as u64) << 32 | place as u64)
    }

    fn in_file(offset: u64, length: usize) -> Self {
        Self(Self::IN_FILE | offset << Self::LENGTH_BITS | length as u64)
    }
}

impl Contents {
    /// Holds nothing. Files are made in `directory`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            batches: Vec::new(),
            held: 0,
            file: None,
            length: 0,
        }
    }

    /// Keeps a batch that is in memory anyway.
    pub(crate) fn keep(&mut self, batch: &Arc<Batch>) -> Spooled {
        self.held += batch.size();
        self.batches.push(Some(Arc::clone(batch)));
        Spooled::InMemory(self.batches.len() - 1)
    }

    /// Takes a batch: into memory while there is little, then into the file.
    pub(crate) fn spool(&mut self, batch: &Arc<Batch>) -> io::Result<Spooled> {
        if self.file.is_none() && self.held + batch.size() <= IN_MEMORY {
            return Ok(self.keep(batch));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(unlinked(&self.directory)?),
        };
        let mut bytes = Vec::with_capacity(batch.size());
        let begins = RecordKind::ALL.map(|kind| {
            let begin = self.length + bytes.len() as u64;
            for emission in batch.emissions(kind) {
                bytes.extend_from_slice(emission.content.unwrap_or_default());
            }
            begin
        });
        file.write_all_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(Spooled::InFile(begins))
    }

    /// Lets go of a batch whose attempt failed.
    pub(crate) fn release(&mut self, number: usize) {
        if let Some(batch) = self.batches.get_mut(number).and_then(Option::take) {
            self.held -= batch.size();
        }
    }

    /// Reads an entity that was emitted; `buffer` holds what comes from the file.
    pub(crate) fn entity<'a>(
        &'a self,
        record: &Emitted,
        buffer: &'a mut Vec<u8>,
    ) -> Result<EntityRef<'a>, StoreError> {
        self.emission(RecordKind::Entity, record, buffer)?
            .entity()
            .ok_or_else(unreadable)
    }

    /// Reads a relationship, as [`entity`](Self::entity) does.
    pub(crate) fn relationship<'a>(
        &'a self,
        record: &Emitted,
        buffer: &'a mut Vec<u8>,
    ) -> Result<RelationshipRef<'a>, StoreError> {
        self.emission(RecordKind::Relationship, record, buffer)?
            .relationship()
            .ok_or_else(unreadable)
    }

    /// Brings the contents of some records near, as far as they are in memory.
    ///
    /// In the order of ids each of them is a miss of all caches: asked for one after the other they
    /// are waited for together, and not each for itself.
    pub(crate) fn bring_near<'a>(
        &self,
        kind: RecordKind,
        records: impl Iterator<Item = &'a Emitted>,
    ) {
        let mut touched = 0;
        for record in records {
            let content = self.in_memory(kind, record).and_then(|e| e.content);
            for line in content.unwrap_or_default().chunks(64) {
                touched ^= line.first().copied().unwrap_or_default();
            }
        }
        std::hint::black_box(touched);
    }

    fn in_memory(&self, kind: RecordKind, record: &Emitted) -> Option<EmissionRef<'_>> {
        let Place(place) = record.place;
        if place & Place::IN_FILE != 0 {
            return None;
        }
        let [batch, place] = [place >> 32, place & u64::from(u32::MAX)].map(size);
        self.batches.get(batch)?.as_ref()?.emission(kind, place)
    }

    fn emission<'a>(
        &'a self,
        kind: RecordKind,
        record: &Emitted,
        buffer: &'a mut Vec<u8>,
    ) -> Result<EmissionRef<'a>, StoreError> {
        let Place(place) = record.place;
        if place & Place::IN_FILE == 0 {
            return self.in_memory(kind, record).ok_or_else(unreadable);
        }
        let place = place & !Place::IN_FILE;
        buffer.resize(size(place & ((1 << Place::LENGTH_BITS) - 1)), 0);
        let file = self.file.as_ref().ok_or_else(unreadable)?;
        file.read_exact_at(buffer, place >> Place::LENGTH_BITS)
            .map_err(|error| StoreError::Engine {
                details: format!("what was emitted cannot be read back: {error}"),
            })?;
        Ok(EmissionRef {
            id: record.id.to_be_bytes(),
            scope: None,
            content: Some(buffer),
        })
    }
}

/// Where a batch is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spooled {
    /// In memory, as a batch of this number.
    InMemory(usize),
    /// In the file: its entities from here, its relationships from there.
    InFile([u64; 2]),
}

impl Spooled {
    /// Returns the number of the batch that is in memory.
    pub(crate) fn in_memory(self) -> Option<usize> {
        match self {
            Self::InMemory(number) => Some(number),
            Self::InFile(_) => None,
        }
    }

    /// Returns the emissions of the batch, each with its place.
    pub(crate) fn emissions(
        self,
        batch: &Batch,
        kind: RecordKind,
    ) -> impl Iterator<Item = (EmissionRef<'_>, Place)> {
        let [entities, relationships] = match self {
            Self::InMemory(_) => [0; 2],
            Self::InFile(begins) => begins,
        };
        let mut offset = match kind {
            RecordKind::Entity => entities,
            RecordKind::Relationship => relationships,
        };
        let emissions = batch.emissions(kind).enumerate();
        emissions.map(move |(number, emission)| {
            let place = match self {
                Self::InMemory(batch) => Place::in_batch(batch, number),
                Self::InFile(_) => {
                    let length = emission.content.map_or(0, <[u8]>::len);
                    offset += length as u64;
                    Place::in_file(offset - length as u64, length)
                }
            };
            (emission, place)
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it was a size when it was packed"
)]
const fn size(bits: u64) -> usize {
    bits as usize
}

/// Makes a file without a name.
fn unlinked(directory: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".parallax-spool-{}-{number}", process::id()));
        let made = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made {
            // Left by a process of this number that was killed right here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                let file = made?;
                fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
}

pub(crate) fn unreadable() -> StoreError {
    StoreError::Engine {
        details: "an emitted record cannot be read back".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use parallax_core::{BatchBuilder, entity, relationship};

    use super::*;

    fn batch(number: usize) -> Arc<Batch> {
        let mut builder = BatchBuilder::new("acme".into());
        for n in 0..50 {
            let key = format!("{number}-{n}");
            let host = entity("host", &key).property("text", "x".repeat(n * 700));
            builder.push(&mut host.into(), None).unwrap();
            let link = relationship(("host", &key), "KNOWS", ("host", "0"));
            builder.push(&mut link.into(), None).unwrap();
        }
        // A rejected one, in between.
        let bad = entity("host", "bad").property("x", f64::NAN);
        builder.push(&mut bad.into(), None).unwrap_err();
        builder.take().unwrap()
    }

    #[test]
    fn what_was_spooled_is_read_back_from_memory_and_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut contents = Contents::new(directory.path().to_owned());
        let batches: Vec<_> = (0..20).map(batch).collect();
        let spooled: Vec<_> = batches.iter().map(|b| contents.spool(b).unwrap()).collect();
        let in_memory = spooled.iter().filter(|s| s.in_memory().is_some()).count();
        assert!((1..20).contains(&in_memory), "{in_memory} of 20 in memory");
        assert!(contents.held <= IN_MEMORY);
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0, "the file has no name");

        let mut buffer = Vec::new();
        for (batch, spooled) in batches.iter().zip(spooled) {
            for (emission, place) in spooled.emissions(batch, RecordKind::Entity) {
                let record = Emitted::new(emission, 0, place, 7);
                assert_eq!(record.is_accepted(), emission.content.is_some());
                if let Some(entity) = emission.entity() {
                    let read = contents.entity(&record, &mut buffer).unwrap();
                    assert_eq!(format!("{read:?}"), format!("{entity:?}"));
                }
            }
            for (emission, place) in spooled.emissions(batch, RecordKind::Relationship) {
                let record = Emitted::new(emission, 0, place, 7);
                let read = contents.relationship(&record, &mut buffer).unwrap();
                let expected = emission.relationship().unwrap();
                assert_eq!(format!("{read:?}"), format!("{expected:?}"));
            }
        }
    }

    #[test]
    fn file_that_a_killed_process_left_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let pid = process::id();
        for number in 0..64 {
            let left = directory
                .path()
                .join(format!(".parallax-spool-{pid}-{number}"));
            std::fs::write(left, "").unwrap();
        }
        unlinked(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 64);
    }

    #[test]
    fn where_no_file_can_be_made_the_error_says_so() {
        let mut contents = Contents::new("/no/such/directory".into());
        let spooled: Vec<_> = (0..20).map(|n| contents.spool(&batch(n))).collect();
        let first = spooled.iter().position(Result::is_err).unwrap();
        assert!(first > 1, "memory is used up first");
        let error = spooled[first].as_ref().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn attempt_that_failed_gives_its_memory_back() {
        let mut contents = Contents::new(std::env::temp_dir());
        let number = contents.spool(&batch(0)).unwrap().in_memory().unwrap();
        contents.release(number);
        contents.release(number);
        assert_eq!(contents.held, 0);
    }
}
