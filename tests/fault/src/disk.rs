//! A disk in memory, as the programs that use it see it, and its faults.

use std::sync::atomic::AtomicU64;

use rusqlite::ffi;
use sqlite_plugin::flags::{LockLevel, ShmLockMode};

use crate::medium::{Change, Files, Name};

/// An error code of SQLite.
pub(crate) type Code = i32;

/// A disk with the files of one store.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: [DiskFile; 3],
    /// All that was done to the files, if somebody asked for it.
    log: Option<Vec<(Name, Change)>>,
    /// What was asked of the disk while it was armed, in order.
    operations: Vec<Operation>,
    fault: Option<Fault>,
    is_armed: bool,
    /// How often the fault has struck.
    strikes: u64,
    last_handle: u64,
    /// Locks of the database file, by handle.
    locks: Vec<(u64, LockLevel)>,
    shared_memory: SharedMemory,
}

#[derive(Debug, Default)]
struct DiskFile {
    /// `None` if it is not there.
    content: Option<Vec<u8>>,
}

/// What a program asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Delete,
    Access,
    Size,
    Read,
    Write,
    Truncate,
    Sync,
    Lock,
    /// The log's index is a file, too, mapped into memory.
    MapIndex,
    LockIndex,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// EIO, or what stands for it where an operation has its own word.
    Io,
    /// Half of a write, then EIO.
    ShortWrite,
    /// ENOSPC.
    Full,
    /// EIO from fsync: what was to be synced may be gone.
    Sync,
}

/// The operations of one or several numbers fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) failure: Failure,
    /// The first to fail, counted from 0 while the disk is armed.
    pub(crate) at: usize,
    /// Whether all that follow fail as well, until the disk is disarmed.
    pub(crate) lasts: bool,
}

/// The index of the write-ahead log: mapped by all connections of a process.
#[derive(Debug, Default)]
struct SharedMemory {
    // Atomic, because SQLite writes to it behind our back.
    regions: Vec<Box<[AtomicU64]>>,
    /// Who holds which of the eight locks, and whether alone.
    locks: Vec<(u64, u32, bool)>,
    handles: Vec<u64>,
}

impl Failure {
    pub(crate) const ALL: [Self; 4] = [Self::Io, Self::ShortWrite, Self::Full, Self::Sync];

    /// Whether this can happen to an operation.
    pub(crate) fn befalls(self, operation: Operation) -> bool {
        use Operation::{MapIndex, Open, Sync, Write};
        match self {
            // Letting go of memory and asking whether a file is there do not fail on any system
            // that SQLite knows; a file that cannot be asked about counts as not there.
            Self::Io => operation != Sync,
            Self::ShortWrite => operation == Write,
            Self::Full => matches!(operation, Write | MapIndex | Open),
            Self::Sync => operation == Sync,
        }
    }

    /// Returns what SQLite's own layer for Unix says in this case.
    fn code(self, operation: Operation) -> Code {
        use Operation::{
            Access, Delete, Lock, LockIndex, MapIndex, Open, Read, Size, Sync, Truncate, Write,
        };
        match (operation, self) {
            (Open, _) => ffi::SQLITE_CANTOPEN,
            (Delete, _) => ffi::SQLITE_IOERR_DELETE,
            (Access, _) => ffi::SQLITE_IOERR_ACCESS,
            (Size, _) => ffi::SQLITE_IOERR_FSTAT,
            (Read, _) => ffi::SQLITE_IOERR_READ,
            (Write, Self::Full) => ffi::SQLITE_FULL,
            (Write, _) => ffi::SQLITE_IOERR_WRITE,
            (Truncate, _) => ffi::SQLITE_IOERR_TRUNCATE,
            (Sync, _) => ffi::SQLITE_IOERR_FSYNC,
            (Lock, _) => ffi::SQLITE_IOERR_LOCK,
            (MapIndex, Self::Full) => ffi::SQLITE_IOERR_SHMSIZE,
            (MapIndex, _) => ffi::SQLITE_IOERR_SHMMAP,
            (LockIndex, _) => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }
}

impl Disk {
    /// Makes a disk that holds `files`.
    pub(crate) fn with(files: Files) -> Self {
        Self {
            files: files.map(|content| DiskFile { content }),
            ..Self::default()
        }
    }

    /// Keeps a log of all that is done from now on.
    pub(crate) fn record(&mut self) {
        self.log = Some(Vec::new());
    }

    pub(crate) fn log(&self) -> &[(Name, Change)] {
        self.log.as_deref().unwrap_or_default()
    }

    pub(crate) fn set_fault(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Counts operations from now on, and lets them fail.
    pub(crate) fn arm(&mut self) {
        self.is_armed = true;
    }

    /// Lets all operations succeed, uncounted. A fault that has struck does not come back.
    pub(crate) fn disarm(&mut self) {
        self.is_armed = false;
        if self.strikes > 0 {
            self.fault = None;
        }
    }

    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub(crate) fn strikes(&self) -> u64 {
        self.strikes
    }

    fn failure(&mut self, operation: Operation) -> Option<Failure> {
        if !self.is_armed {
            return None;
        }
        let number = self.operations.len();
        self.operations.push(operation);
        let fault = self.fault?;
        let strikes = fault.failure.befalls(operation)
            && (number == fault.at || fault.lasts && number > fault.at);
        strikes.then(|| {
            self.strikes += 1;
            fault.failure
        })
    }

    fn check(&mut self, operation: Operation) -> Result<(), Code> {
        self.failure(operation)
            .map_or(Ok(()), |failure| Err(failure.code(operation)))
    }

    fn change(&mut self, name: Name, change: Change) {
        if let Some(log) = &mut self.log {
            log.push((name, change));
        }
    }

    pub(crate) fn open(&mut self, name: Name, creates: bool) -> Result<u64, Code> {
        self.check(Operation::Open)?;
        let content = &mut self.files[name as usize].content;
        if content.is_none() {
            // The store creates the database's file before SQLite opens it.
            if !creates && name != Name::Database {
                return Err(ffi::SQLITE_CANTOPEN);
            }
            *content = Some(Vec::new());
            self.change(name, Change::Create);
        }
        self.last_handle += 1;
        Ok(self.last_handle)
    }

    pub(crate) fn close(&mut self, handle: u64) {
        self.unlock(handle, LockLevel::Unlocked);
    }

    pub(crate) fn delete(&mut self, name: Name) -> Result<(), Code> {
        self.check(Operation::Delete)?;
        if self.files[name as usize].content.take().is_none() {
            return Err(ffi::SQLITE_IOERR_DELETE_NOENT);
        }
        self.change(name, Change::Delete);
        Ok(())
    }

    pub(crate) fn exists(&mut self, name: Name) -> bool {
        // What cannot be asked about counts as not there, for SQLite on Unix.
        self.check(Operation::Access).is_ok() && self.files[name as usize].content.is_some()
    }

    pub(crate) fn size(&mut self, name: Name) -> Result<usize, Code> {
        self.check(Operation::Size)?;
        Ok(self.content(name).len())
    }

    /// Reads as far as the file goes, and returns how far that was.
    pub(crate) fn read(
        &mut self,
        name: Name,
        offset: usize,
        buffer: &mut [u8],
    ) -> Result<usize, Code> {
        self.check(Operation::Read)?;
        let rest = self.content(name).get(offset..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    pub(crate) fn write(&mut self, name: Name, offset: usize, data: &[u8]) -> Result<(), Code> {
        let failure = self.failure(Operation::Write);
        let data = match failure {
            Some(Failure::ShortWrite) => &data[..data.len() / 2],
            Some(failure) => return Err(failure.code(Operation::Write)),
            None => data,
        };
        let content = self.content(name);
        let end = offset + data.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(data);
        let data = data.to_vec();
        self.change(name, Change::Write { offset, data });
        failure.map_or(Ok(()), |failure| Err(failure.code(Operation::Write)))
    }

    pub(crate) fn truncate(&mut self, name: Name, size: usize) -> Result<(), Code> {
        self.check(Operation::Truncate)?;
        self.content(name).resize(size, 0);
        self.change(name, Change::Truncate { size });
        Ok(())
    }

    pub(crate) fn sync(&mut self, name: Name) -> Result<(), Code> {
        let result = self.check(Operation::Sync);
        self.change(
            name,
            match result {
                Ok(()) => Change::Sync,
                Err(_) => Change::FailedSync,
            },
        );
        result
    }

    fn content(&mut self, name: Name) -> &mut Vec<u8> {
        self.files[name as usize].content.get_or_insert_default()
    }

    pub(crate) fn lock(&mut self, handle: u64, level: LockLevel) -> Result<(), Code> {
        self.check(Operation::Lock)?;
        let others = self.locks.iter().filter(|(other, _)| *other != handle);
        let highest = others.map(|(_, level)| *level).max();
        let highest = highest.unwrap_or(LockLevel::Unlocked);
        let is_free = match level {
            LockLevel::Unlocked => true,
            LockLevel::Shared => highest <= LockLevel::Reserved,
            LockLevel::Reserved | LockLevel::Pending => highest <= LockLevel::Shared,
            LockLevel::Exclusive => highest == LockLevel::Unlocked,
        };
        if !is_free {
            return Err(ffi::SQLITE_BUSY);
        }
        self.locks.retain(|(other, _)| *other != handle);
        self.locks.push((handle, level));
        Ok(())
    }

    pub(crate) fn unlock(&mut self, handle: u64, level: LockLevel) {
        self.locks.retain(|(other, _)| *other != handle);
        if level > LockLevel::Unlocked {
            self.locks.push((handle, level));
        }
    }

    pub(crate) fn is_reserved(&self) -> bool {
        let mut levels = self.locks.iter().map(|(_, level)| *level);
        levels.any(|level| level >= LockLevel::Reserved)
    }

    /// Returns a region of the log's index; `None` if it is not there and shall not be made.
    pub(crate) fn map_index(
        &mut self,
        handle: u64,
        region: usize,
        size: usize,
        extend: bool,
    ) -> Result<Option<&[AtomicU64]>, Code> {
        self.check(Operation::MapIndex)?;
        let memory = &mut self.shared_memory;
        if !memory.handles.contains(&handle) {
            memory.handles.push(handle);
        }
        while extend && memory.regions.len() <= region {
            let words = (0..size / 8).map(|_| AtomicU64::new(0));
            memory.regions.push(words.collect());
        }
        Ok(memory.regions.get(region).map(|region| &region[..]))
    }

    pub(crate) fn lock_index(
        &mut self,
        handle: u64,
        places: std::ops::Range<u32>,
        mode: ShmLockMode,
    ) -> Result<(), Code> {
        let locks = &mut self.shared_memory.locks;
        let is_in = |place: &u32| places.contains(place);
        match mode {
            ShmLockMode::UnlockShared | ShmLockMode::UnlockExclusive => {
                locks.retain(|(other, place, _)| !(*other == handle && is_in(place)));
                Ok(())
            }
            ShmLockMode::LockShared | ShmLockMode::LockExclusive => {
                let alone = matches!(mode, ShmLockMode::LockExclusive);
                let mut others = locks.iter().filter(|(other, ..)| *other != handle);
                if others.any(|(_, place, is_alone)| is_in(place) && (alone || *is_alone)) {
                    return Err(ffi::SQLITE_BUSY);
                }
                self.check(Operation::LockIndex)?;
                let locks = &mut self.shared_memory.locks;
                locks.extend(places.map(|place| (handle, place, alone)));
                Ok(())
            }
        }
    }

    pub(crate) fn unmap_index(&mut self, handle: u64) {
        let memory = &mut self.shared_memory;
        memory.handles.retain(|other| *other != handle);
        memory.locks.retain(|(other, ..)| *other != handle);
        if memory.handles.is_empty() {
            memory.regions.clear();
        }
    }
}
