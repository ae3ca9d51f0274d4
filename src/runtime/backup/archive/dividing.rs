//! Dividing the rows of large statements.
//!
//! The database's programs make one statement of all rows that one statement changed, and neither a program
//! nor a server takes one of any size. A row event may end its statement at any row, as long as the tables
//! are named again for the rows that follow; the transaction stays one.

use super::events::HEADER;
use super::reading::Opened;
use crate::runtime::backup::BackupError;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// A statement gets about so many bytes of rows.
const MOST_ROWS: u64 = 4 << 20;
/// An event of more bytes is passed on as it is.
const MOST_HELD: u64 = 64 << 20;
/// Up to its flags an event of rows has so many bytes after its header.
const FLAGS: u64 = 8;
/// The flag of the last event of a statement.
const ENDS: u8 = 1;

const TABLE: u8 = 19;
/// Written, updated and deleted rows: in both versions, parts of JSON, and MariaDB's compressed ones.
const ROWS: [u8; 13] = [23, 24, 25, 30, 31, 32, 39, 166, 167, 168, 169, 170, 171];

/// The statement whose rows are being passed on.
#[derive(Debug, Default)]
pub(super) struct Dividing {
    /// The events that name its tables.
    tables: Vec<Vec<u8>>,
    /// How many bytes of rows it has so far.
    bytes: u64,
    /// Whether it has begun, and so names no other tables.
    begun: bool,
    /// Whether it was ended before its time.
    divided: bool,
}

impl Dividing {
    /// Passes an event on, whose head was read.
    pub(super) async fn pass_on(
        &mut self,
        opened: &mut Opened<'_>,
        (mut head, rest): (Vec<u8>, u64),
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BackupError> {
        if head.is_empty() {
            return Ok(());
        }
        let kind = head.get(4).copied().unwrap_or_default();
        let size = HEADER as u64 + rest;
        if kind == TABLE && size <= MOST_HELD {
            if self.begun {
                *self = Dividing::default();
            }
            opened.pass_on(rest, &mut head).await?;
            write(into, &head).await?;
            self.tables.push(head);
            return Ok(());
        }
        if !ROWS.contains(&kind) || rest < FLAGS {
            write(into, &head).await?;
            return opened.pass_on(rest, into).await;
        }
        opened.pass_on(FLAGS, &mut head).await?;
        let ends = head.get(HEADER + 6).is_some_and(|flags| flags & ENDS != 0);
        self.begun = true;
        if std::mem::take(&mut self.divided) {
            for table in &self.tables {
                write(into, table).await?;
            }
        }
        self.bytes += size;
        if ends || self.bytes < MOST_ROWS || size > MOST_HELD {
            write(into, &head).await?;
            return opened.pass_on(rest - FLAGS, into).await;
        }
        opened.pass_on(rest - FLAGS, &mut head).await?;
        if let Some(flags) = head.get_mut(HEADER + 6) {
            *flags |= ENDS;
        }
        if opened.has_checksums() {
            let end = head.len().saturating_sub(4);
            let sum = crc32fast::hash(head.get(..end).unwrap_or_default());
            head.truncate(end);
            head.extend(sum.to_le_bytes());
        }
        (self.bytes, self.divided) = (0, true);
        write(into, &head).await
    }
}

async fn write(into: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), BackupError> {
    into.write_all(bytes).await.map_err(BackupError::io("feeding the server"))
}
