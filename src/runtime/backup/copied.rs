//! Proving a copy of a server's files: they are unpacked and prepared as for a restore, a server is started
//! on them, and all of it is read.
//!
//! What a copy is of is known only at its end, so nothing was counted that its tables could be compared with.
//! Instead each index of each table is read and compared with the others.

use super::agent::noted_in;
use super::counting::{count, quoted};
use super::directory::{free, laid_out};
use super::proving::{Examination, Found, blame, position_of};
use super::throwaway::{Opening, Site, Throwaway, Wanted, wanted};
use super::{BackupError, Progress};
use crate::decision::backup::counts::MOST_TABLES;
use crate::decision::backup::manifest::{Innodb, Manifest, Method};
use crate::decision::gtid::Gtids;
use crate::decision::topology::Flavor;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use std::ffi::OsString;
use std::time::Duration;
use tokio::sync::watch;

/// A server may have to apply much that was written while it was copied.
pub(super) const START: Duration = Duration::from_secs(3_600);

/// It replicates from nobody, whomever the copied server followed.
const ALONE: [&str; 2] = ["--loose-skip-replica-start", "--loose-skip-slave-start"];
/// It takes no setting from the files.
const NO_SETTINGS: &str = "--loose-persisted-globals-load=OFF";

/// What a server is told that is started on a copy.
pub(super) fn words(flavor: Flavor, innodb: Option<&Innodb>) -> Vec<OsString> {
    let mut words: Vec<OsString> = ALONE.map(OsString::from).into();
    if flavor == Flavor::MySql {
        words.push(NO_SETTINGS.into());
    }
    if let Some(innodb) = innodb {
        words.push(format!("--innodb-page-size={}", innodb.page_size).into());
        words.push(format!("--innodb-data-file-path={}", innodb.data_file_path).into());
        let undo = innodb.undo_tablespaces;
        words.extend(undo.map(|count| format!("--innodb-undo-tablespaces={count}").into()));
    }
    words
}

/// Restores a copy and reads all of it.
pub(super) async fn proven(
    examination: &Examination<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<Found, BackupError> {
    let Examination { target, manifest, identities, backups, .. } = *examination;
    let wanted = wanted((manifest, backups), examination.clock);
    let site = Site::make(&wanted).await?;
    let data = site.data().to_owned();
    let made = tokio::fs::create_dir(&data).await;
    made.map_err(BackupError::io(data.display().to_string()))?;
    if free(&data)? < manifest.plain_bytes {
        return Err(without_room(&wanted));
    }
    let place = (data.as_path(), &backups.tools);
    let laid = laid_out(target, manifest, identities, place, progress).await;
    laid.map_err(|error| match error {
        BackupError::Tool { .. } | BackupError::Io { .. } if !site.has_room() => {
            without_room(&wanted)
        }
        error => error,
    })?;
    let noted = noted_in(&data, manifest.flavor);
    let mut words = words(manifest.flavor, manifest.innodb.as_ref());
    // Nobody but this user reaches it.
    words.push("--skip-grant-tables".into());
    let opened = site.open(Opening { words, login: None, limit: START }).await;
    let server = match opened {
        Ok(server) => server,
        Err(not) => {
            // Where it does not start on new files either, it is not these that are bad.
            let starts = not.by_itself && Throwaway::start(&wanted).await.is_ok();
            let what = &not.what;
            let bad = format!("a server that starts on new files does not start on these: {what}");
            return Err(if starts { damaged(manifest, bad) } else { not.into() });
        }
    };
    let mut reading = String::new();
    let wrong = match read(&server, manifest, noted, &mut reading).await {
        Ok(found) => return Ok(found),
        Err(wrong) => wrong,
    };
    Err(match wrong {
        // A server of InnoDB ends by itself rather than go on with a page that is none.
        Wrong::Asking(Error::Io(_)) if server.gives_up().await && server.has_room() => {
            let what = format!("the server ended when it read {reading}: {}", server.last_words());
            damaged(manifest, what)
        }
        Wrong::Asking(error) => {
            let what = format!("asking it what it holds: {error}");
            blame(&server, BackupError::Throwaway(what))
        }
        Wrong::Told(error) => error,
    })
}

fn without_room(wanted: &Wanted<'_>) -> BackupError {
    let place = wanted.directory.display();
    BackupError::Throwaway(format!(
        "{place} has no room for all files of the backup; free some, or name a roomier place in \
         backups.verify.directory"
    ))
}

fn damaged(manifest: &Manifest, what: String) -> BackupError {
    BackupError::Damaged { object: manifest.object.clone(), what }
}

/// Why not all was read, or not as it should be.
enum Wrong {
    Asking(Error),
    Told(BackupError),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        Wrong::Asking(error)
    }
}

/// Looks at the position, and reads every table; what is being read stands in `reading`.
async fn read(
    server: &Throwaway,
    manifest: &Manifest,
    noted: Option<Gtids>,
    reading: &mut String,
) -> Result<Found, Wrong> {
    let mut conn = server.connect().await?;
    let mut found =
        Found { server: Some(format!("{} {}", server.flavor, server.version)), ..Found::default() };
    found.elsewhere = elsewhere(&mut conn, manifest, noted).await?;
    let mut checked = 0;
    let schemas = schemas(&mut conn).await?;
    if !manifest.schemas.is_empty() && !manifest.schemas.iter().any(|it| schemas.contains(it)) {
        let what = "it holds none of the schemas that were there".to_owned();
        return Err(Wrong::Told(damaged(manifest, what)));
    }
    for schema in &schemas {
        for (table, encrypted) in tables(&mut conn, schema).await? {
            *reading = format!("{schema}.{table}");
            if let Some(why) = fault(&mut conn, schema, &table).await? {
                return Err(Wrong::Told(judged(server, manifest, encrypted, (reading, &why))));
            }
            checked += 1;
        }
    }
    found.checked = Some(checked);
    if let Some(counts) = manifest.tables.as_ref().filter(|counts| counts.missing.is_none()) {
        let sums = count(&mut conn, &manifest.schemas).await?;
        found.compared = Some(counts.compare(&sums));
    }
    Ok(found)
}

/// What is said of the position, where it is not the backup's.
async fn elsewhere(
    conn: &mut Conn,
    manifest: &Manifest,
    noted: Option<Gtids>,
) -> Result<Option<String>, Error> {
    let position = &manifest.position;
    let cut = |gtids: &Gtids| gtids.to_string().chars().take(100).collect::<String>();
    if manifest.method != Method::PhysicalClone {
        // What the program noted among the files, but for domains that had not moved.
        let noted = noted.map(|noted| noted.with_domains_of(position));
        if noted.as_ref() != Some(position) {
            let noted = noted.map_or_else(|| "no position".to_owned(), |noted| cut(&noted));
            let what = format!("its files name {noted}, and its manifest {}", cut(position));
            return Ok(Some(what));
        }
        if manifest.flavor == Flavor::MySql {
            return Ok(None);
        }
    }
    let at = position_of(conn, manifest.flavor).await?;
    let at = at.unwrap_or_else(|| Gtids::empty(manifest.flavor));
    let most = manifest.at_most.as_ref();
    Ok(match manifest.flavor {
        Flavor::MySql if !at.contains(position) => Some(format!(
            "a server on its files has {}, which lacks some of {}",
            cut(&at),
            cut(position)
        )),
        Flavor::MySql => most.filter(|most| !most.contains(&at)).map(|most| {
            format!("a server on its files has {}, which is more than {}", cut(&at), cut(most))
        }),
        // What it had received as a replica; as a primary it may have gone on from there.
        Flavor::MariaDb => (!position.contains(&at)).then(|| {
            format!("a server on its files is at {}, which is beyond {}", cut(&at), cut(position))
        }),
    })
}

async fn schemas(conn: &mut Conn) -> Result<Vec<String>, Error> {
    let question = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA \
        WHERE SCHEMA_NAME NOT IN ('information_schema', 'performance_schema') ORDER BY 1";
    conn.query(question).await
}

/// The tables of a schema, and whether each is encrypted with a key that is not among the files.
async fn tables(conn: &mut Conn, schema: &str) -> Result<Vec<(String, bool)>, Error> {
    let most = MOST_TABLES + 1;
    let question = format!(
        "SELECT TABLE_NAME, COALESCE(CREATE_OPTIONS, '') LIKE '%ENCRYPT%' \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? \
         AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1 LIMIT {most}"
    );
    let tables: Vec<(String, bool)> = conn.exec(question, (schema,)).await?;
    if tables.len() > MOST_TABLES {
        let what = format!("{schema} has more than {MOST_TABLES} tables");
        return Err(Error::Other(what.into()));
    }
    Ok(tables)
}

/// What is wrong with a table, in the server's words.
async fn fault(conn: &mut Conn, schema: &str, table: &str) -> Result<Option<String>, Error> {
    let name = format!("{}.{}", quoted(schema), quoted(table));
    let said: Vec<Row> = match conn.query(format!("CHECK TABLE {name}")).await {
        Ok(said) => said,
        Err(Error::Server(error)) => return Ok(Some(error.to_string())),
        Err(error) => return Err(error),
    };
    let text = |row: &Row, at: usize| row.get_opt::<String, _>(at).and_then(Result::ok);
    let is_error = |row: &&Row| text(row, 2).is_some_and(|kind| kind.eq_ignore_ascii_case("error"));
    let wrong = said.iter().find(is_error);
    Ok(wrong.map(|row| text(row, 3).unwrap_or_default()))
}

/// Whether a table that cannot be read speaks against the backup.
fn judged(
    server: &Throwaway,
    manifest: &Manifest,
    encrypted: bool,
    (table, why): (&str, &str),
) -> BackupError {
    let (has, of) = (server.version, manifest.version);
    let what = format!("{table} is not as it should be: {why}");
    if encrypted {
        let what = format!("{what}; it is encrypted, and a server for a proof has no keys");
        return BackupError::Throwaway(what);
    }
    if (has.major, has.minor) != (of.major, of.minor) {
        let what = format!(
            "{what}; this server is {has}, and the backup of {of}: name one of that version in \
             backups.verify.server"
        );
        return BackupError::Throwaway(what);
    }
    if server.has_room() {
        damaged(manifest, what)
    } else {
        blame(server, BackupError::Throwaway(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_a_copy_is_told_how_its_files_are_laid_out() {
        assert_eq!(words(Flavor::MariaDb, None).len(), ALONE.len());
        let data_file_path = "ibdata1:12M:autoextend".to_owned();
        let innodb = Innodb { page_size: 8_192, data_file_path, undo_tablespaces: Some(3) };
        let words = words(Flavor::MySql, Some(&innodb));
        for word in [NO_SETTINGS, "--innodb-page-size=8192", "--innodb-undo-tablespaces=3"] {
            assert!(words.contains(&word.into()), "{word}: {words:?}");
        }
    }
}
