use std::cell;

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;

use crate::error::StoreError;
use crate::result::{Cell, Rows};
use crate::sqlite::error::store_error;

thread_local! {
    /// Whether what this thread has prepared is somebody else's statement.
    static IS_FOREIGN: cell::Cell<bool> = const { cell::Cell::new(false) };
}

/// Has the engine ask whenever a connection prepares a statement. It is told once, and not for each
/// query: all statements that are kept have to be prepared again after it.
pub(super) fn set_up(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.authorizer(Some(authorize))
}

fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        _ if !IS_FOREIGN.get() => Authorization::Allow,
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Recursive
        | AuthAction::Function { .. } => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

/// While it lives, this thread prepares what somebody else wrote.
struct Foreign;

impl Foreign {
    fn begin() -> Self {
        IS_FOREIGN.set(true);
        Self
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        IS_FOREIGN.set(false);
    }
}

/// Runs one statement that reads. The engine itself refuses anything else: writes, other files,
/// settings.
pub(super) fn query(connection: &Connection, sql: &str) -> Result<Rows, StoreError> {
    let _foreign = Foreign::begin();
    run(connection, sql)
}

fn run(connection: &Connection, sql: &str) -> Result<Rows, StoreError> {
    let rejected = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => {
            StoreError::Query("it does more than read".to_owned())
        }
        Some(rusqlite::ErrorCode::Unknown) | None => StoreError::Query(message(&error)),
        Some(_) => store_error(error),
    };
    let mut statement = connection.prepare(sql).map_err(rejected)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    if columns.is_empty() {
        return Err(StoreError::Query("it answers with no columns".to_owned()));
    }
    let width = columns.len();
    let mut answer = Rows {
        columns,
        rows: Vec::new(),
    };
    let mut rows = statement.query([]).map_err(rejected)?;
    while let Some(row) = rows.next().map_err(rejected)? {
        let cells = (0..width).map(|column| row.get_ref(column).map(cell));
        answer
            .rows
            .push(cells.collect::<Result<_, _>>().map_err(rejected)?);
    }
    Ok(answer)
}

/// The engine's message, without the statement that rusqlite repeats behind it.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::MultipleStatement => "it holds more than one statement".to_owned(),
        error => error.to_string(),
    }
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{StatementStatus, params};

    use super::*;
    use crate::sqlite::open::Location;

    #[test]
    fn statements_that_are_kept_are_prepared_once() {
        let opened = Location::Memory.open().unwrap();
        for source_id in [1, 70, 2] {
            query(&opened.connection, "SELECT * FROM parallax_source").unwrap();
            // As a comparison reads.
            let sql = "SELECT id FROM px_entity
                 WHERE source_id = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id";
            let mut kept = opened.connection.prepare_cached(sql).unwrap();
            kept.exists(params![source_id, [0u8; 16], [255u8; 16]])
                .unwrap();
            assert_eq!(kept.get_status(StatementStatus::RePrepare), 0);
        }
    }

    #[test]
    fn only_what_somebody_else_wrote_is_refused() {
        let opened = Location::Memory.open().unwrap();
        let sql = "DELETE FROM px_source";
        let error = query(&opened.connection, sql).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the query cannot be run: it does more than read"
        );
        opened.connection.execute(sql, []).unwrap();
    }
}
