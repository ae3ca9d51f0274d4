//! Reading a binary log through the replication protocol, from its first file that matters.

use super::super::session::{Session, StepError};
use crate::decision::gtid::Gtids;
use crate::decision::topology::Flavor;
use crate::runtime::mysql::connect;
use futures_util::StreamExt;
use mysql_async::binlog::EventType;
use mysql_async::binlog::events::{Event, EventData, RotateEvent, TableMapEvent};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Row};
use std::time::Duration;

/// How long the server may take to send the next part.
const SILENCE: Duration = Duration::from_secs(30);

/// MariaDB's event that begins a transaction.
const MARIADB_GTID: u8 = 162;

/// MariaDB's flag of such an event: one statement follows, and no commit.
const STANDALONE: u8 = 1;

/// MariaDB's kinds of event that say nothing of what was changed: the statement as a comment, a
/// checkpoint, the list of GTIDs, the beginning of encryption.
const MARIADB_SILENT: [u8; 4] = [160, 161, 163, 164];

/// MariaDB's kinds of compressed event.
const MARIADB_COMPRESSED: std::ops::RangeInclusive<u8> = 165..=171;

/// The newest file of the binary log before which all is known to the primary.
pub(super) async fn first_log(session: &mut Session, primary: &Gtids) -> Result<String, StepError> {
    let logs: Vec<Row> = session.ask("SHOW BINARY LOGS").await?;
    let names = logs.iter().filter_map(|row| row.get::<String, usize>(0));
    for name in names.collect::<Vec<_>>().into_iter().rev() {
        let before = before(session, &name).await?;
        if before.is_some_and(|before| before.minus(primary).is_empty()) {
            return Ok(name);
        }
    }
    Err(StepError::Failed("the binary log that held its transactions was purged".to_owned()))
}

/// All transactions of earlier files, as a file's head names them.
async fn before(session: &mut Session, log: &str) -> Result<Option<Gtids>, StepError> {
    let question = session.dialect.log_head(log);
    let head: Vec<Row> = session.ask(&question).await?;
    for row in head {
        let kind: String = row.get(2).unwrap_or_default();
        if kind == "Previous_gtids" || kind == "Gtid_list" {
            let set: String = row.get(5).unwrap_or_default();
            let set = set.trim_matches(['[', ']']);
            let parsed = Gtids::parse(session.dialect.flavor, set);
            return parsed.map(Some).map_err(|error| StepError::Failed(error.to_string()));
        }
    }
    Ok(None)
}

/// A binary log being read to its present end.
pub(super) struct Log {
    stream: BinlogStream,
    flavor: Flavor,
    file: String,
    /// Whether the transaction being read is wanted.
    within: bool,
    /// Whether it ends with its first statement.
    standalone: bool,
}

impl Log {
    pub(super) async fn open(session: &mut Session, first: &str) -> Result<Log, StepError> {
        let mut conn = session.bulk_connection().await?;
        let flavor = session.dialect.flavor;
        if flavor == Flavor::MariaDb {
            // Otherwise GTIDs are left out.
            conn.query_drop("SET @mariadb_slave_capability = 4").await?;
        }
        // A number of its own: two readers of one number throw each other out.
        let number = 0xF000_0000 | u32::try_from(session.wall().0 & 0x0FFF_FFFF).unwrap_or(0);
        let request = BinlogStreamRequest::new(number)
            .with_filename(first.as_bytes())
            .with_pos(4)
            .with_non_blocking();
        let stream = conn.get_binlog_stream(request).await?;
        Ok(Log { stream, flavor, file: first.to_owned(), within: false, standalone: false })
    }

    /// The next event; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, StepError> {
        let next = tokio::time::timeout(SILENCE, self.stream.next());
        let next = next.await.map_err(|_| StepError::Retry("its binary log stalls".to_owned()))?;
        let Some(event) = next.transpose()? else {
            return Ok(None);
        };
        if event.header().event_type_raw() == EventType::ROTATE_EVENT as u8
            && let Ok(rotated) = event.read_event::<RotateEvent<'_>>()
        {
            self.file = rotated.name().into_owned();
        }
        Ok(Some(event))
    }

    /// The transaction that this event begins, if the primary does not have it.
    pub(super) fn wanted(
        &mut self,
        event: &Event,
        primary: &Gtids,
    ) -> Result<Option<Gtids>, StepError> {
        let Some(gtid) = self.beginning(event)? else {
            return Ok(None);
        };
        self.within = !primary.contains(&gtid);
        Ok(self.within.then_some(gtid))
    }

    /// The transaction that this event begins.
    fn beginning(&mut self, event: &Event) -> Result<Option<Gtids>, StepError> {
        let kind = event.header().event_type_raw();
        let text = if kind == MARIADB_GTID && self.flavor == Flavor::MariaDb {
            let bytes = event.data();
            let [sequence @ .., d0, d1, d2, d3, flags] = bytes.get(..13).unwrap_or_default() else {
                return Err(unreadable());
            };
            let sequence: [u8; 8] = sequence.try_into().map_err(|_| unreadable())?;
            self.standalone = flags & STANDALONE != 0;
            let domain = u32::from_le_bytes([*d0, *d1, *d2, *d3]);
            let server = event.header().server_id();
            format!("{domain}-{server}-{}", u64::from_le_bytes(sequence))
        } else if kind == EventType::GTID_EVENT as u8
            || kind == EventType::GTID_TAGGED_LOG_EVENT as u8
        {
            self.standalone = false;
            match event.read_data() {
                Ok(Some(EventData::GtidEvent(gtid))) => {
                    let tag = gtid.tag().map_or(String::new(), |tag| format!("{tag}:"));
                    format!("{}:{tag}{}", uuid(&gtid.sid()), gtid.gno())
                }
                _ => return Err(unreadable()),
            }
        } else {
            return Ok(None);
        };
        let parsed = Gtids::parse(self.flavor, &text);
        parsed.map(Some).map_err(|error| StepError::Failed(error.to_string()))
    }

    /// Whether the transaction being read is one of those wanted.
    pub(super) fn within(&self) -> bool {
        self.within
    }

    /// Whether one statement makes the whole transaction.
    pub(super) fn standalone(&self) -> bool {
        self.standalone
    }

    /// What an event says, if it says anything of what was changed.
    pub(super) fn content<'a>(&self, event: &'a Event) -> Result<Option<EventData<'a>>, StepError> {
        let kind = event.header().event_type_raw();
        if self.flavor == Flavor::MariaDb && MARIADB_SILENT.contains(&kind) {
            return Ok(None);
        }
        if self.flavor == Flavor::MariaDb && MARIADB_COMPRESSED.contains(&kind) {
            let text = "its binary log is compressed (log_bin_compress), which is not understood";
            return Err(StepError::Failed(text.to_owned()));
        }
        event.read_data().map_err(|_| unreadable())
    }

    /// The table that rows belong to.
    pub(super) fn table(&self, id: u64) -> Option<&TableMapEvent<'static>> {
        self.stream.get_tme(id)
    }

    /// The file being read.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) async fn close(self) {
        // Everything wanted was read.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close()).await;
    }
}

pub(super) fn unreadable() -> StepError {
    StepError::Failed("its binary log holds an event that is not understood".to_owned())
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

impl Session {
    /// A connection that takes packets of any size the server sends.
    async fn bulk_connection(&self) -> Result<mysql_async::Conn, StepError> {
        let (address, account) = (self.address(), &self.credentials().monitor);
        Ok(connect::connect_for_bulk(address, account, Duration::from_secs(3)).await?)
    }
}
