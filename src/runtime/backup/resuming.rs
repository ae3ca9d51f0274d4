//! Going on with a restore that was broken off.
//!
//! How far a restore is, the server itself knows: at each boundary of the dump, the session that carries it
//! out writes into the schema `regent` how many bytes came before, and their checksum. Whatever dies, all
//! before the last such note was carried out, and nothing behind the boundary after it. The next attempt
//! reads the backup again from its beginning, has the session's settings made again, carries nothing more
//! out up to that boundary, and goes on there: with what the dump drops and makes anew.
//!
//! The note is a row of InnoDB, so a server that crashes keeps what was noted with it. Tables of engines that
//! keep nothing in a crash are why one that was started since may be refused.

use super::BackupError;
use super::boundaries::{Boundaries, Mark, Piece};
use super::taking::OWN;
use crate::decision::backup::manifest::{Manifest, Sha256};
use crate::decision::report::Status;
use crate::decision::topology::ServerName;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use std::time::Duration;

/// There is no such table, or no such schema.
const NOT_THERE: [u16; 2] = [1146, 1049];
/// There is no such column: a note of an older version.
const NO_COLUMN: u16 = 1054;
/// Held by the session that carries a dump out.
const LOCK: &str = "regent.restoring";
/// How long what was fed to a session may take after whoever fed it is gone.
const LOOKS: u32 = 120;
const BETWEEN: Duration = Duration::from_millis(500);

/// What a server keeps of a restore as long as it is not at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Which backup is restored.
    pub backup: String,
    /// When that began, in the server's words.
    pub begun: String,
    /// The checksum of what is stored of that backup.
    stored: Option<Sha256>,
    /// Up to where it was carried out.
    reached: Option<Mark>,
}

impl Note {
    /// Reads a server's note, if there is one.
    pub(super) async fn read(
        conn: &mut Conn,
        server: &ServerName,
    ) -> Result<Option<Note>, BackupError> {
        let question =
            "SELECT backup, CAST(begun AS CHAR), sha256, reached, summed FROM regent.restoring";
        let older =
            "SELECT backup, CAST(begun AS CHAR), NULL, NULL, NULL FROM regent.restoring LIMIT 1";
        let mut found: Result<Option<Row>, Error> = conn.query_first(question).await;
        if matches!(&found, Err(Error::Server(error)) if error.code == NO_COLUMN) {
            found = conn.query_first(older).await;
        }
        match found {
            Ok(found) => Ok(found.and_then(Note::of)),
            Err(Error::Server(error)) if NOT_THERE.contains(&error.code) => Ok(None),
            Err(error) => Err(BackupError::server(server, error)),
        }
    }

    fn of(row: Row) -> Option<Note> {
        type Columns = (String, String, Option<String>, Option<u64>, Option<String>);
        let columns: Result<Columns, _> = mysql_async::from_row_opt(row);
        let (backup, begun, stored, reached, summed) = columns.ok()?;
        let sum = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let reached = reached.zip(sum(summed)).map(|(at, sum)| Mark { at, sum });
        Some(Note { backup, begun, stored: sum(stored), reached })
    }

    /// Notes that a restore begins.
    pub(super) async fn begin(conn: &mut Conn, manifest: &Manifest) -> Result<Note, Error> {
        conn.query_drop("SET SESSION sql_log_bin = 0").await?;
        conn.query_drop("CREATE DATABASE IF NOT EXISTS regent").await?;
        forget(conn).await?;
        conn.query_drop(
            "CREATE TABLE regent.restoring (one TINYINT PRIMARY KEY, backup VARCHAR(200) NOT NULL, \
             begun DATETIME NOT NULL, sha256 CHAR(64), reached BIGINT UNSIGNED, summed CHAR(64), \
             noted DATETIME NOT NULL) ENGINE = InnoDB",
        )
        .await?;
        // An id holds letters, digits, dots and dashes only.
        let (id, stored) = (&manifest.id, manifest.sha256);
        conn.query_drop(format!(
            "INSERT INTO regent.restoring VALUES \
             (1, '{id}', UTC_TIMESTAMP(), '{stored}', NULL, NULL, UTC_TIMESTAMP())"
        ))
        .await?;
        let begun = "SELECT CAST(begun AS CHAR) FROM regent.restoring";
        let begun = conn.query_first(begun).await?.unwrap_or_default();
        Ok(Note { backup: id.to_string(), begun, stored: Some(stored), reached: None })
    }

    /// Whether it is of this very backup and the restore can be gone on with; why not otherwise.
    pub(super) fn fits(&self, manifest: &Manifest) -> Result<(), String> {
        if self.backup != manifest.id.to_string() {
            let (theirs, own) = (&self.backup, &manifest.id);
            return Err(format!(
                "holds a part of backup {theirs}, and not of {own}: name {theirs} to go on with it"
            ));
        }
        if self.stored != Some(manifest.sha256) {
            return Err(format!("holds a part of another backup of the name {}", self.backup));
        }
        Ok(())
    }

    /// How much of the SQL needs not be carried out again.
    pub(super) fn reached(&self) -> u64 {
        self.reached.as_ref().map_or(0, |mark| mark.at)
    }

    /// What a session carries out to note how far it is. Cut off anywhere, it is none.
    fn statement(&self, mark: &Mark) -> Option<String> {
        let Note { backup, begun, stored, .. } = self;
        let stored = stored.as_ref()?;
        Some(format!(
            "\nREPLACE INTO regent.restoring VALUES (1, '{backup}', '{begun}', '{stored}', {}, '{}', \
             UTC_TIMESTAMP());\nCOMMIT;\n",
            mark.at, mark.sum
        ))
    }
}

/// The restore came to its end.
pub(super) async fn forget(conn: &mut Conn) -> Result<(), Error> {
    conn.query_drop("SET SESSION sql_log_bin = 0").await?;
    conn.query_drop("DROP TABLE IF EXISTS regent.restoring").await
}

/// Looks whether a server holds what a restore left there, and nothing else; why not otherwise.
pub(super) async fn untouched(
    conn: &mut Conn,
    (note, schemas): (&Note, &[String]),
    (manifest, status): (&Manifest, &Status),
) -> Result<Result<(), String>, Error> {
    if let Err(why) = note.fits(manifest) {
        return Ok(Err(why));
    }
    let beyond = status.executed.minus(&manifest.position);
    let placed = status.executed.contains(&manifest.position) && !status.executed.is_empty();
    // Where it was at the point of following, it knows whom.
    if let Some(channel) = status.channels.first().filter(|_| !placed) {
        return Ok(Err(format!("replicates from {} since the restore broke off", channel.source)));
    }
    if !beyond.is_empty() || !(placed || status.executed.is_empty()) {
        let executed: String = status.executed.to_string().chars().take(100).collect();
        return Ok(Err(format!(
            "has executed transactions since the restore broke off, or began with some ({executed})"
        )));
    }
    let of_backup =
        |name: &&String| !manifest.schemas.iter().any(|schema| schema.eq_ignore_ascii_case(name));
    if let Some(foreign) = schemas.iter().find(of_backup) {
        return Ok(Err(format!("has a schema {foreign} that is not in the backup")));
    }
    Ok(match lost_in_a_crash(conn).await? {
        None => Ok(()),
        Some(table) => Err(format!(
            "was started since the restore broke off, and {table} is of an engine that may have lost rows by \
             that"
        )),
    })
}

/// A table that may have lost rows when the server ended after the last note.
async fn lost_in_a_crash(conn: &mut Conn) -> Result<Option<String>, Error> {
    let uptime: Option<(String, u64)> =
        conn.query_first("SHOW GLOBAL STATUS LIKE 'Uptime'").await?;
    let uptime = uptime.map_or(0, |(_, seconds)| seconds);
    // A second more, as both are cut off to seconds.
    let since = format!(
        "SELECT COUNT(*) FROM regent.restoring \
         WHERE noted <= UTC_TIMESTAMP() - INTERVAL {uptime} SECOND + INTERVAL 1 SECOND"
    );
    if conn.query_first(since).await? == Some(0_u64) {
        return Ok(None);
    }
    let question = format!(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.TABLES \
         WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB' AND LOWER(TABLE_SCHEMA) NOT IN ({OWN}) \
         LIMIT 1"
    );
    conn.query_first(question).await
}

/// Waits until no session carries out what an earlier restore fed to it.
pub(super) async fn alone(conn: &mut Conn, server: &ServerName) -> Result<(), BackupError> {
    let question = format!("SELECT IS_USED_LOCK('{LOCK}')");
    let mut holder = None;
    for _ in 0..LOOKS {
        let found: Result<Option<Option<u64>>, Error> = conn.query_first(&question).await;
        holder = found.map_err(|error| BackupError::server(server, error))?.flatten();
        if holder.is_none() {
            return Ok(());
        }
        tokio::time::sleep(BETWEEN).await;
    }
    let holder = holder.unwrap_or_default();
    Err(BackupError::NotEmpty(format!(
        "a restore into {server} still goes on there, in connection {holder}; wait for its end, or end it with \
         KILL {holder}"
    )))
}

/// What is fed to the client program of a restore: the dump with notes of how far it is, from its beginning or
/// from where an earlier attempt broke off. The server's position is left out; it is set at the end.
#[derive(Debug)]
pub(super) struct Passing {
    boundaries: Boundaries,
    note: Note,
    way: Way,
}

/// What becomes of the SQL that is read.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It is carried out.
    On,
    /// It is carried out up to the first boundary: the settings of the session.
    Settings(Mark),
    /// It was carried out before.
    Skipping(Mark),
    /// It is not what it was.
    Astray,
}

impl Passing {
    /// From the beginning, or from where the note says.
    pub(super) fn new(note: Note) -> Passing {
        let way = note.reached.clone().map_or(Way::On, Way::Settings);
        Passing { boundaries: Boundaries::new(), note, way }
    }

    /// What a session does first.
    pub(super) fn head() -> String {
        format!("DO GET_LOCK('{LOCK}', 10);\n")
    }

    /// What is to be carried out of these bytes.
    pub(super) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BackupError> {
        let Passing { boundaries, note, way } = self;
        let mut place = Placed { note, way, out };
        boundaries.read(bytes, &mut |piece| place.take(piece));
        self.straight()
    }

    /// What is to be carried out when all was read.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BackupError> {
        let Passing { boundaries, note, way } = self;
        let mut place = Placed { note, way, out };
        boundaries.end(&mut |piece| place.take(piece));
        if self.way != Way::On {
            self.way = Way::Astray;
        }
        self.straight()
    }

    fn straight(&self) -> Result<(), BackupError> {
        if self.way != Way::Astray {
            return Ok(());
        }
        Err(BackupError::NotEmpty(format!(
            "the first {} bytes of backup {} are not those that were carried out; begin anew",
            self.note.reached(),
            self.note.backup
        )))
    }
}

/// Where pieces of SQL go.
struct Placed<'a> {
    note: &'a Note,
    way: &'a mut Way,
    out: &'a mut Vec<u8>,
}

impl Placed<'_> {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Sql(bytes) if matches!(self.way, Way::On | Way::Settings(_)) => {
                self.out.extend_from_slice(bytes);
            }
            Piece::Sql(_) | Piece::Position(_) => {}
            Piece::Mark(mark, schema) => self.mark(&mark, schema),
        }
    }

    fn mark(&mut self, mark: &Mark, schema: &[u8]) {
        match self.way {
            Way::On => {
                let statement = self.note.statement(mark).unwrap_or_default();
                self.out.extend_from_slice(statement.as_bytes());
            }
            Way::Settings(noted) | Way::Skipping(noted) if mark == noted => {
                self.out.push(b'\n');
                self.out.extend_from_slice(schema);
                self.out.push(b'\n');
                *self.way = Way::On;
            }
            Way::Settings(noted) | Way::Skipping(noted) if mark.at < noted.at => {
                *self.way = Way::Skipping(noted.clone());
            }
            _ => *self.way = Way::Astray,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Note {
        /// Of a backup, when nothing of it was carried out yet.
        pub(in super::super) fn of_backup(backup: &str, begun: &str) -> Note {
            let stored = Some(Sha256([7; 32]));
            Note { backup: backup.to_owned(), begun: begun.to_owned(), stored, reached: None }
        }
    }

    const DUMP: &str = "SET NAMES utf8mb4;\nSET @@GLOBAL.GTID_PURGED='a:1-2,\nb:3';\n\n\
        --\n-- Current Database: `shop`\n--\n\nUSE `shop`;\n\n\
        --\n-- Table structure for table `a`\n--\nCREATE a;\n\
        --\n-- Table structure for table `b`\n--\nCREATE b;\n-- Dump completed\n";

    fn passed(note: Note, bytes: &str, size: usize) -> Result<String, BackupError> {
        let (mut passing, mut out) = (Passing::new(note), Vec::new());
        for part in bytes.as_bytes().chunks(size) {
            passing.pass(part, &mut out)?;
        }
        passing.end(&mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// The marks in what a restore from the beginning feeds.
    fn marks(fed: &str) -> Vec<Mark> {
        let notes = fed.lines().filter(|line| line.starts_with("REPLACE INTO regent.restoring"));
        let mark = |line: &str| {
            let parts: Vec<&str> = line.split(", ").collect();
            let sum = parts[5].trim_matches('\'').parse().unwrap();
            Mark { at: parts[4].parse().unwrap(), sum }
        };
        notes.map(mark).collect()
    }

    #[test]
    fn it_goes_on_at_each_boundary_and_nowhere_else() {
        let note = Note::of_backup("X", "noon");
        let whole = passed(note.clone(), DUMP, 9).unwrap();
        assert!(!whole.contains("GTID_PURGED") && !whole.contains("b:3"), "{whole}");
        let marks = marks(&whole);
        assert_eq!(marks.len(), 4, "{whole}");
        for (at, mark) in marks.iter().enumerate() {
            let note = Note { reached: Some(mark.clone()), ..note.clone() };
            let again = passed(note.clone(), DUMP, 9).unwrap();
            assert!(again.starts_with("SET NAMES"), "{again}");
            let made = |what: &str| again.contains(what);
            assert_eq!((made("CREATE a"), made("CREATE b")), (at < 2, at < 3), "{again}");
            if at > 0 {
                let settings = again.split("-- Table").next().unwrap();
                assert!(settings.contains("\nUSE `shop`;\n"), "{again}");
            }
            let other = DUMP.replace("utf8mb4", "utf8mb3");
            let error = passed(note, &other, 9).unwrap_err().to_string();
            assert!(error.contains("are not those that were carried out"), "{error}");
        }
        let between = Mark { at: marks[1].at + 1, sum: marks[1].sum };
        passed(Note { reached: Some(between), ..note }, DUMP, 9).unwrap_err();
    }

    #[test]
    fn a_note_that_is_cut_off_is_none() {
        let note = Note::of_backup("X", "noon");
        let text = note.statement(&Mark { at: 7, sum: Sha256([1; 32]) }).unwrap();
        let statement = text.split(';').next().unwrap();
        let open = |part: &str| part.matches('(').count() - part.matches(')').count();
        let (last, begun) = (statement.len() - 1, statement.find('(').unwrap() + 1);
        assert!((begun..=last).all(|end| open(&statement[..end]) > 0), "{statement}");
        assert_eq!(open(statement), 0);
    }
}
