use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;

use crate::error::StoreError;
use crate::result::{Cell, Rows};
use crate::sqlite::error::store_error;

/// Runs one statement that reads. The engine itself refuses anything else: writes, other files,
/// settings.
pub(super) fn query(connection: &mut Connection, sql: &str) -> Result<Rows, StoreError> {
    connection.authorizer(Some(reading_only))?;
    let rows = run(connection, sql);
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    rows
}

fn reading_only(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Recursive
        | AuthAction::Function { .. } => Authorization::Allow,
        _ => Authorization::Deny,
    }
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
