//! The layer below SQLite: files that begin with a mounted path are on a [`Disk`] in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use rusqlite::ffi;
use sqlite_plugin::flags::{AccessFlags, CreateMode, LockLevel, OpenMode, OpenOpts, ShmLockMode};
use sqlite_plugin::vfs::{RegisterOpts, Vfs, VfsHandle, VfsResult, register_static};

use crate::disk::Disk;
use crate::medium::Name;

/// A disk that is in use.
pub(crate) type Shared = Arc<Mutex<Disk>>;

static MOUNTED: LazyLock<Mutex<HashMap<String, Shared>>> = LazyLock::new(Mutex::default);

/// Makes SQLite keep all files of this process on disks in memory.
pub(crate) fn install() -> Result<()> {
    let name = CString::new("fault")?;
    let options = RegisterOpts { make_default: true };
    register_static(name, Memory, options)
        .map_err(|code| anyhow!("SQLite refuses the layer: {code}"))?;
    Ok(())
}

/// Puts a disk where a store's path leads.
pub(crate) fn mount(path: &str, disk: Disk) -> Shared {
    let disk = Arc::new(Mutex::new(disk));
    locked(&MOUNTED).insert(path.to_owned(), Arc::clone(&disk));
    disk
}

/// Locks a mutex that a panicking test may have poisoned.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Memory;

struct Handle {
    disk: Shared,
    name: Name,
    id: u64,
    is_read_only: bool,
}

impl VfsHandle for Handle {
    fn readonly(&self) -> bool {
        self.is_read_only
    }

    fn in_memory(&self) -> bool {
        // SQLite would give up journals for such a file.
        false
    }
}

/// Finds the disk and the file that a path leads to.
fn find(path: &str) -> VfsResult<(Shared, Name)> {
    let mounted = locked(&MOUNTED);
    // The longest suffix first: each path ends in nothing.
    let found = Name::ALL.into_iter().rev().find_map(|name| {
        let store = path.strip_suffix(name.suffix())?;
        Some((Arc::clone(mounted.get(store)?), name))
    });
    found.ok_or(ffi::SQLITE_CANTOPEN)
}

impl Vfs for Memory {
    type Handle = Handle;

    fn canonical_path<'a>(&self, path: Cow<'a, str>) -> VfsResult<Cow<'a, str>> {
        Ok(path)
    }

    fn open(&self, path: Option<&str>, opts: OpenOpts) -> VfsResult<Handle> {
        // Temporary files have no name. The store keeps them in memory.
        let path = path.ok_or(ffi::SQLITE_CANTOPEN)?;
        let (disk, name) = find(path)?;
        let mode = opts.mode();
        let creates = !matches!(
            mode,
            OpenMode::ReadOnly
                | OpenMode::ReadWrite {
                    create: CreateMode::None
                }
        );
        let id = locked(&disk).open(name, creates)?;
        Ok(Handle {
            disk,
            name,
            id,
            is_read_only: mode.is_readonly(),
        })
    }

    fn delete(&self, path: &str) -> VfsResult<()> {
        let (disk, name) = find(path)?;
        locked(&disk).delete(name)
    }

    fn access(&self, path: &str, _flags: AccessFlags) -> VfsResult<bool> {
        let (disk, name) = find(path)?;
        Ok(locked(&disk).exists(name))
    }

    fn file_size(&self, handle: &mut Handle) -> VfsResult<usize> {
        locked(&handle.disk).size(handle.name)
    }

    fn truncate(&self, handle: &mut Handle, size: usize) -> VfsResult<()> {
        locked(&handle.disk).truncate(handle.name, size)
    }

    fn write(&self, handle: &mut Handle, offset: usize, data: &[u8]) -> VfsResult<usize> {
        locked(&handle.disk).write(handle.name, offset, data)?;
        Ok(data.len())
    }

    fn read(&self, handle: &mut Handle, offset: usize, data: &mut [u8]) -> VfsResult<usize> {
        locked(&handle.disk).read(handle.name, offset, data)
    }

    fn lock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        locked(&handle.disk).lock(handle.id, level)
    }

    fn unlock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        locked(&handle.disk).unlock(handle.id, level);
        Ok(())
    }

    fn check_reserved_lock(&self, handle: &mut Handle) -> VfsResult<bool> {
        Ok(locked(&handle.disk).is_reserved())
    }

    fn sync(&self, handle: &mut Handle) -> VfsResult<()> {
        locked(&handle.disk).sync(handle.name)
    }

    fn close(&self, handle: Handle) -> VfsResult<()> {
        locked(&handle.disk).close(handle.id);
        Ok(())
    }

    fn sector_size(&self, _handle: &mut Handle) -> VfsResult<i32> {
        // As SQLite assumes on Unix; the disk may tear at less.
        Ok(4096)
    }

    fn device_characteristics(&self, _handle: &mut Handle) -> VfsResult<i32> {
        // The one thing that SQLite takes for granted on Unix: bytes beside a write stay.
        Ok(ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE)
    }

    fn shm_map(
        &self,
        handle: &mut Handle,
        region_idx: usize,
        region_size: usize,
        extend: bool,
    ) -> VfsResult<Option<NonNull<u8>>> {
        let mut disk = locked(&handle.disk);
        let region = disk.map_index(handle.id, region_idx, region_size, extend)?;
        Ok(region.map(|region| NonNull::from(region).cast()))
    }

    fn shm_lock(
        &self,
        handle: &mut Handle,
        offset: u32,
        count: u32,
        mode: ShmLockMode,
    ) -> VfsResult<()> {
        locked(&handle.disk).lock_index(handle.id, offset..offset + count, mode)
    }

    fn shm_unmap(&self, handle: &mut Handle, _delete: bool) -> VfsResult<()> {
        locked(&handle.disk).unmap_index(handle.id);
        Ok(())
    }
}
