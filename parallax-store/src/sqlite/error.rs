use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};

use crate::error::StoreError;

/// Tells what an error of the engine means for the user of a store that is open.
pub(crate) fn store_error(error: rusqlite::Error) -> StoreError {
    let details = error.to_string();
    let extended_code = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        // The log's index could not grow. SQLite calls that an I/O error.
        _ if extended_code == Some(SQLITE_IOERR_SHMSIZE) => StoreError::Full { details },
        // SQLite keeps what the system said to itself.
        _ if extended_code == Some(SQLITE_IOERR_WRITE) => StoreError::Engine {
            details: format!(
                "{details}: a write failed, as on a bad disk, beyond a quota, or beyond the \
                 process's limit of file sizes"
            ),
        },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { details }
        }
        Some(ErrorCode::DiskFull) => StoreError::Full { details },
        // A row that is always there is not, or does not hold what it was made with.
        None if is_of_a_row(&error) => StoreError::Corrupt { details },
        _ => StoreError::Engine { details },
    }
}

/// Tells whether something else was read than what the statement is for.
fn is_of_a_row(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

/// Tells what an error of the engine means for someone who opens the file at `path`.
pub(crate) fn open_error(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::NotAStore {
            path: path.to_owned(),
            reason: error.to_string(),
        },
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            StoreError::Permission {
                path: path.to_owned(),
                source: std::io::Error::other(error.to_string()).into(),
            }
        }
        _ => store_error(error),
    }
}

/// Tells what an error of the system means for the store at `path`.
pub(crate) fn io_error(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full {
                details: error.to_string(),
            }
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Permission {
                path: path.to_owned(),
                source: error.into(),
            }
        }
        _ => StoreError::Engine {
            details: format!("{}: {error}", path.display()),
        },
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        store_error(error)
    }
}

impl From<rusqlite::Error> for crate::error::CommitError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(store_error(error))
    }
}
