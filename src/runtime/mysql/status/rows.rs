//! Reading columns of the text protocol by name, missing ones as absent.

use mysql_async::{Row, Value};

/// A column as text; absent when the column is missing or null.
pub(super) fn text(row: &Row, column: &str) -> Option<String> {
    let index = row.columns_ref().iter().position(|own| own.name_ref() == column.as_bytes())?;
    match row.as_ref(index)? {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A column as a number; zero when missing, null or none.
pub(super) fn number(row: &Row, column: &str) -> u64 {
    signed(row, column).unwrap_or(0)
}

/// A column as a number, when it holds one that is not negative.
pub(super) fn signed(row: &Row, column: &str) -> Option<u64> {
    text(row, column)?.parse().ok()
}

/// A column as a switch: `1`, `ON` or `YES`.
pub(super) fn flag(row: &Row, column: &str) -> bool {
    text(row, column)
        .is_some_and(|value| ["1", "ON", "YES"].iter().any(|on| value.eq_ignore_ascii_case(on)))
}
