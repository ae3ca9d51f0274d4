//! Events of a binary log: where transactions begin and end, and when they were committed.

use crate::decision::gtid::Gtids;
use crate::decision::topology::Flavor;
use mysql_async::binlog::EventType;
use mysql_async::binlog::events::{Event, EventData};

/// What a file of a binary log begins with.
pub(super) const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
/// How many bytes an event's header has.
pub(super) const HEADER: usize = 19;

const STOP: u8 = EventType::STOP_EVENT as u8;
const QUERY: u8 = EventType::QUERY_EVENT as u8;
const ROTATE: u8 = EventType::ROTATE_EVENT as u8;
pub(super) const DESCRIPTION: u8 = EventType::FORMAT_DESCRIPTION_EVENT as u8;
const XID: u8 = EventType::XID_EVENT as u8;
const LOAD: u8 = EventType::EXECUTE_LOAD_QUERY_EVENT as u8;
const INCIDENT: u8 = EventType::INCIDENT_EVENT as u8;
const HEARTBEAT: u8 = EventType::HEARTBEAT_EVENT as u8;
const GTID: u8 = EventType::GTID_EVENT as u8;
const ANONYMOUS: u8 = EventType::ANONYMOUS_GTID_EVENT as u8;
const PREVIOUS: u8 = EventType::PREVIOUS_GTIDS_EVENT as u8;
const PREPARED: u8 = EventType::XA_PREPARE_LOG_EVENT as u8;
const PAYLOAD: u8 = EventType::TRANSACTION_PAYLOAD_EVENT as u8;
const TAGGED: u8 = EventType::GTID_TAGGED_LOG_EVENT as u8;
/// MySQL's heartbeat that can name positions beyond 4 GiB.
const LARGE_HEARTBEAT: u8 = 41;
/// MariaDB's: a checkpoint, the beginning of a transaction, a list of GTIDs, the beginning of encryption.
const CHECKPOINT: u8 = 161;
const MARIADB_GTID: u8 = 162;
const GTID_LIST: u8 = 163;
const ENCRYPTION: u8 = 164;
/// MariaDB's compressed statement.
const COMPRESSED_QUERY: u8 = 165;

/// MariaDB's flag of an event that begins a transaction: one statement follows, and no commit.
const STANDALONE: u8 = 1;
/// And that one: a statement in it changes a table's definition.
const CHANGES_TABLES: u8 = 32;

/// Why a binary log cannot be archived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Strange {
    #[error("its binary log holds an event of type {0} that is not understood")]
    Event(u8),
    #[error("its binary log holds transactions without a GTID; set gtid_mode = ON")]
    Anonymous,
    #[error("an event of its binary log arrived damaged")]
    Damaged,
}

/// The beginning of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Began {
    /// Its GTID, as a set of its own.
    pub gtid: Gtids,
    /// When it was committed where it was written, in microseconds since the Unix epoch. MariaDB knows the
    /// second; this is its end.
    pub micros: u64,
    standalone: bool,
    /// Whether it may make a table and fill it: MariaDB only.
    pub may_make_a_table: bool,
}

/// What an event is, as far as an archive cares.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// Of no interest: it says something of the file, or of the connection.
    Nothing,
    /// How the events that follow are laid out.
    Description,
    /// The file ends, or another begins; a transaction that is not complete never will be.
    Break,
    /// The beginning of a transaction; the one before it is complete.
    Begins(Began),
    /// A part of a transaction.
    Within {
        /// Whether it is the last one.
        ends: bool,
    },
}

/// Whether an event of this kind begins a transaction.
pub(super) fn begins(kind: u8, flavor: Flavor) -> bool {
    match flavor {
        Flavor::MySql => kind == GTID || kind == TAGGED,
        Flavor::MariaDb => kind == MARIADB_GTID,
    }
}

/// The transaction that an event begins.
pub(super) fn beginning(event: &Event, flavor: Flavor) -> Result<Began, Strange> {
    let kind = event.header().event_type_raw();
    let seconds = u64::from(event.header().timestamp());
    let (text, micros, flags) = match flavor {
        Flavor::MariaDb => {
            let bytes = event.data().get(..13).ok_or(Strange::Event(kind))?;
            let [sequence @ .., d0, d1, d2, d3, flags] = bytes else {
                return Err(Strange::Event(kind));
            };
            let sequence: [u8; 8] = sequence.try_into().map_err(|_| Strange::Event(kind))?;
            let domain = u32::from_le_bytes([*d0, *d1, *d2, *d3]);
            let (server, sequence) = (event.header().server_id(), u64::from_le_bytes(sequence));
            let text = format!("{domain}-{server}-{sequence}");
            (text, seconds * 1_000_000 + 999_999, *flags)
        }
        Flavor::MySql => {
            let Ok(Some(EventData::GtidEvent(gtid))) = event.read_data() else {
                return Err(Strange::Event(kind));
            };
            let tag = gtid.tag().map_or(String::new(), |tag| format!("{tag}:"));
            let text = format!("{}:{tag}{}", uuid(&gtid.sid()), gtid.gno());
            let committed = [gtid.original_commit_timestamp(), gtid.immediate_commit_timestamp()];
            // Versions before 8.0 know the second only.
            let committed = committed.into_iter().find(|micros| *micros > 0);
            (text, committed.unwrap_or(seconds * 1_000_000), 0)
        }
    };
    let gtid = Gtids::parse(flavor, &text).map_err(|_| Strange::Event(kind))?;
    let standalone = flags & STANDALONE != 0;
    let may_make_a_table = !standalone && flags & CHANGES_TABLES != 0;
    Ok(Began { gtid, micros, standalone, may_make_a_table })
}

/// Whether an event is as its server sent it.
pub(super) fn check(event: &Event) -> Result<(), Strange> {
    let algorithm = event.footer().get_checksum_alg().map_err(|_| Strange::Damaged)?;
    match (algorithm, event.checksum()) {
        (Some(algorithm), Some(sum)) if event.footer().get_checksum_enabled() => {
            let right = event.calc_checksum(algorithm) == u32::from_le_bytes(sum);
            if right { Ok(()) } else { Err(Strange::Damaged) }
        }
        _ => Ok(()),
    }
}

/// Follows a binary log from transaction to transaction.
#[derive(Debug)]
pub(super) struct Boundaries {
    flavor: Flavor,
    open: Option<Open>,
    /// What follows repeats a compressed transaction, unpacked by the driver.
    unpacked: bool,
}

#[derive(Debug)]
struct Open {
    /// Only a commit, or what comes in its place, ends it.
    until_commit: bool,
}

impl Boundaries {
    pub(super) fn new(flavor: Flavor) -> Boundaries {
        Boundaries { flavor, open: None, unpacked: false }
    }

    /// What the next event is.
    pub(super) fn take(&mut self, event: &Event) -> Result<Seen, Strange> {
        let kind = event.header().event_type_raw();
        if begins(kind, self.flavor) {
            let began = beginning(event, self.flavor)?;
            // MariaDB's transactions have no BEGIN of their own.
            let until_commit = self.flavor == Flavor::MariaDb && !began.standalone;
            self.open = Some(Open { until_commit });
            self.unpacked = false;
            return Ok(Seen::Begins(began));
        }
        match kind {
            HEARTBEAT | LARGE_HEARTBEAT | PREVIOUS | CHECKPOINT | GTID_LIST | ENCRYPTION => {
                Ok(Seen::Nothing)
            }
            DESCRIPTION => {
                self.close();
                Ok(Seen::Description)
            }
            ROTATE | STOP => {
                self.close();
                Ok(Seen::Break)
            }
            ANONYMOUS => Err(Strange::Anonymous),
            _ if self.unpacked => Ok(Seen::Nothing),
            _ => self.within(event, kind),
        }
    }

    fn close(&mut self) {
        self.open = None;
        self.unpacked = false;
    }

    fn within(&mut self, event: &Event, kind: u8) -> Result<Seen, Strange> {
        let Some(open) = &mut self.open else {
            return Err(Strange::Event(kind));
        };
        let ends = match kind {
            XID | PREPARED | PAYLOAD => true,
            QUERY => match text(event.data()) {
                Some(b"BEGIN") => {
                    open.until_commit = true;
                    false
                }
                Some(text) if text.starts_with(b"XA START") => {
                    open.until_commit = true;
                    false
                }
                Some(b"COMMIT" | b"ROLLBACK") => true,
                Some(text) if text.starts_with(b"XA COMMIT") => true,
                Some(text) if text.starts_with(b"XA ROLLBACK") => true,
                _ => !open.until_commit,
            },
            COMPRESSED_QUERY | LOAD | INCIDENT => !open.until_commit,
            _ => false,
        };
        self.unpacked = kind == PAYLOAD;
        if ends {
            self.open = None;
        }
        Ok(Seen::Within { ends })
    }
}

/// An event with that head and that content.
pub(super) fn event(head: &[u8], data: &[u8], summed: bool) -> Vec<u8> {
    let sum = if summed { 4 } else { 0 };
    let size = u32::try_from(HEADER + data.len() + sum).unwrap_or(u32::MAX);
    let mut bytes = head.to_vec();
    bytes.resize(HEADER, 0);
    if let Some(place) = bytes.get_mut(9..13) {
        place.copy_from_slice(&size.to_le_bytes());
    }
    bytes.extend(data);
    if summed {
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    }
    bytes
}

/// An event that is that statement, in no transaction.
pub(super) fn statement(text: &str, summed: bool) -> Vec<u8> {
    let mut data = vec![0; 14];
    data.extend(text.as_bytes());
    event(&[0, 0, 0, 0, QUERY], &data, summed)
}

/// The statement of an event that holds one.
pub(super) fn text(data: &[u8]) -> Option<&[u8]> {
    let schema = usize::from(*data.get(8)?);
    let status = usize::from(u16::from_le_bytes([*data.get(11)?, *data.get(12)?]));
    data.get(13 + status + schema + 1..)
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_async::binlog::BinlogVersion;
    use mysql_async::binlog::events::FormatDescriptionEvent;

    /// An event as it lies in a log without checksums.
    fn event(kind: u8, data: &[u8]) -> Event {
        let size = u32::try_from(HEADER + data.len()).unwrap();
        let mut bytes = 7_u32.to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(data);
        Event::read(&FormatDescriptionEvent::new(BinlogVersion::Version4), bytes.as_slice())
            .unwrap()
    }

    fn query(text: &str) -> Event {
        let mut data = vec![0; 13];
        data[8] = 4;
        data.extend(b"shop\0");
        data.extend(text.as_bytes());
        event(QUERY, &data)
    }

    fn mariadb(flags: u8) -> Event {
        let mut data = 9_u64.to_le_bytes().to_vec();
        data.extend(1_u32.to_le_bytes());
        data.push(flags);
        data.extend([0; 6]);
        event(MARIADB_GTID, &data)
    }

    fn mysql() -> Event {
        let mut data = vec![0; 25];
        data[1] = 0xab;
        data[17] = 5;
        event(GTID, &data)
    }

    /// Whether the last of these events ends the transaction, and no earlier one.
    fn ends_last(flavor: Flavor, events: &[Event]) -> bool {
        let mut boundaries = Boundaries::new(flavor);
        let ends: Vec<bool> = events
            .iter()
            .map(|event| matches!(boundaries.take(event).unwrap(), Seen::Within { ends: true }))
            .collect();
        ends.iter().position(|ends| *ends) == Some(events.len() - 1)
    }

    #[test]
    fn transactions_end_where_they_are_committed() {
        let rows = || event(30, &[0; 20]);
        let xid = || event(XID, &[0; 8]);
        let on_mysql: [Vec<Event>; 6] = [
            vec![mysql(), query("BEGIN"), rows(), rows(), xid()],
            vec![mysql(), query("BEGIN"), query("SAVEPOINT a"), rows(), query("COMMIT")],
            vec![mysql(), query("DROP TABLE commit")],
            vec![
                mysql(),
                query("XA START X'1'"),
                rows(),
                query("XA END X'1'"),
                event(PREPARED, &[]),
            ],
            vec![mysql(), query("XA COMMIT X'1'")],
            vec![mysql(), event(PAYLOAD, &[0])],
        ];
        for events in &on_mysql {
            assert!(ends_last(Flavor::MySql, events), "{events:?}");
        }
        let on_mariadb: [Vec<Event>; 4] = [
            vec![mariadb(0), event(160, b"x"), rows(), xid()],
            vec![mariadb(STANDALONE), event(5, &[0; 9]), query("DROP TABLE x")],
            vec![mariadb(0), query("INSERT INTO x VALUES (1)"), query("COMMIT")],
            vec![mariadb(STANDALONE), event(COMPRESSED_QUERY, &[0])],
        ];
        for events in &on_mariadb {
            assert!(ends_last(Flavor::MariaDb, events), "{events:?}");
        }
    }

    #[test]
    fn beginnings_say_who_and_when() {
        let began = beginning(&mariadb(0), Flavor::MariaDb).unwrap();
        assert_eq!(began.gtid.to_string(), "1-3-9");
        assert_eq!(began.micros, 7_999_999);
        let began = beginning(&mysql(), Flavor::MySql).unwrap();
        assert_eq!(began.gtid.to_string(), "ab000000-0000-0000-0000-000000000000:5");
        assert_eq!(began.micros, 7_000_000);
    }

    #[test]
    fn what_belongs_to_no_transaction_is_told_apart() {
        let mut boundaries = Boundaries::new(Flavor::MySql);
        assert_eq!(boundaries.take(&event(HEARTBEAT, b"log")), Ok(Seen::Nothing));
        assert_eq!(boundaries.take(&event(ANONYMOUS, &[0; 25])), Err(Strange::Anonymous));
        assert_eq!(boundaries.take(&query("DROP TABLE x")), Err(Strange::Event(QUERY)));
        assert!(boundaries.take(&mysql()).is_ok());
        assert!(matches!(boundaries.take(&event(STOP, &[])), Ok(Seen::Break)));
        // A compressed transaction is followed by what is in it.
        assert!(boundaries.take(&mysql()).is_ok());
        assert!(boundaries.take(&event(PAYLOAD, &[0])).is_ok());
        assert_eq!(boundaries.take(&query("BEGIN")), Ok(Seen::Nothing));
        assert!(matches!(boundaries.take(&mysql()), Ok(Seen::Begins(_))));
    }
}
