//! Tables that are made and filled in one transaction.
//!
//! MariaDB logs `CREATE TABLE ... SELECT` as a statement and rows under one GTID. Its client commits after the
//! statement, and the rows would get a GTID of their own. So the table is made without entering the log, and
//! the rows take the GTID; one that was made and not filled, because something broke off, is made again.

use super::events::{HEADER, event, text};

const QUERY: u8 = 2;
/// No statement that makes a table is larger.
const MOST: u64 = 64 << 20;

/// What a transaction begins with.
#[derive(Debug, PartialEq)]
pub(super) enum Making {
    /// A table: the event that makes it anew.
    Table(Vec<u8>),
    /// Something else.
    Other,
}

/// Whether an event, of which so many bytes follow its head, is a statement.
pub(super) fn is_statement(head: &[u8], rest: u64) -> bool {
    head.get(4) == Some(&QUERY) && rest <= MOST
}

/// What this whole event of a statement does.
pub(super) fn making(bytes: &[u8], summed: bool) -> Making {
    let end = if summed { bytes.len().saturating_sub(4) } else { bytes.len() };
    let data = bytes.get(HEADER..end).unwrap_or_default();
    let statement = text(data).unwrap_or_default();
    if statement.starts_with(b"CREATE OR REPLACE TABLE ") {
        return Making::Table(bytes.to_vec());
    }
    let Some(rest) = statement.strip_prefix(b"CREATE TABLE ") else {
        return Making::Other;
    };
    let mut changed = data.get(..data.len() - statement.len()).unwrap_or_default().to_vec();
    changed.extend(b"CREATE OR REPLACE TABLE ");
    changed.extend(rest);
    Making::Table(event(bytes.get(..HEADER).unwrap_or_default(), &changed, summed))
}

#[cfg(test)]
mod tests {
    use super::super::events::statement;
    use super::*;

    #[test]
    fn only_tables_are_made_anew() {
        for summed in [true, false] {
            let anew = statement("CREATE OR REPLACE TABLE `a` (`b` int)", summed);
            let made = statement("CREATE TABLE `a` (`b` int)", summed);
            assert_eq!(making(&made, summed), Making::Table(anew.clone()));
            assert_eq!(making(&anew, summed), Making::Table(anew));
            let other = statement("INSERT INTO a VALUES ('CREATE TABLE ')", summed);
            assert_eq!(making(&other, summed), Making::Other);
            assert!(is_statement(&other, 9) && !is_statement(&[0; HEADER], 9));
        }
    }
}
