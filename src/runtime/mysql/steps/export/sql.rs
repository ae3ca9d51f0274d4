//! The file that people read: each transaction with its GTID, each change as a statement.

use super::super::session::{Session, StepError};
use super::reading::{Log, unreadable};
use crate::decision::gtid::Gtids;
use crate::decision::plan::Export;
use mysql_async::binlog::IntvarEventType;
use mysql_async::binlog::events::{Event, EventData, QueryEvent, RowsEventData, TableMapEvent};
use mysql_async::binlog::row::BinlogRow;
use mysql_async::binlog::value::BinlogValue;
use mysql_async::consts::ColumnType;
use mysql_async::{Column, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::fs::{DirBuilder, File, OpenOptions};
use tokio::io::{AsyncWriteExt, BufWriter};

/// A file larger than this is not a few last transactions any more.
const MOST_BYTES: u64 = 1 << 30;

/// A file under way.
pub(super) struct Script {
    file: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    bytes: u64,
    transactions: u64,
    rows: u64,
    schema: String,
    /// Names and types of the columns of each table, as they are now.
    columns: BTreeMap<(String, String), Vec<(String, String)>>,
}

impl Script {
    pub(super) async fn begin(
        session: &Session,
        beyond: &Gtids,
        primary: &Gtids,
    ) -> Result<Script, StepError> {
        let place = session.exports();
        let now = session.wall().to_string();
        let time: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
        let (cluster, server) = (&session.access().cluster, &session.access().server.name);
        let directory = place.directory.join(cluster.as_str());
        let path = directory.join(format!("{server}-{time}.sql"));
        let part = path.with_extension("part");
        let opening = async {
            DirBuilder::new().recursive(true).mode(0o700).create(&directory).await?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&part).await
        };
        let file = opening.await.map_err(|error| unwritable(&part, &error))?;
        let mut script = Script {
            file: BufWriter::new(file),
            part,
            path,
            bytes: 0,
            transactions: 0,
            rows: 0,
            schema: String::new(),
            columns: BTreeMap::new(),
        };
        let watcher = &place.watcher;
        script
            .line(&format!(
                "-- What {server} of cluster {cluster} has committed and the primary has not.\n\
                 -- Written at {now} by watcher {watcher}, for reading: run again only what you \
                 mean to keep.\n\
                 -- GTIDs: {beyond}\n\
                 -- The primary held: {primary}\n"
            ))
            .await?;
        Ok(script)
    }

    /// Bytes written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The head of a transaction.
    pub(super) async fn transaction(
        &mut self,
        gtid: &Gtids,
        event: &Event,
    ) -> Result<(), StepError> {
        self.transactions += 1;
        let at = u64::from(event.header().timestamp()) * 1000;
        let (at, origin) = (crate::clock::WallTime(at), event.header().server_id());
        self.line(&format!("\n-- GTID {gtid}, {at}, written on server_id {origin}")).await
    }

    /// What one event of a wanted transaction changed.
    pub(super) async fn event(
        &mut self,
        session: &mut Session,
        log: &Log,
        event: &Event,
    ) -> Result<(), StepError> {
        let Some(content) = log.content(event)? else {
            return Ok(());
        };
        match content {
            EventData::QueryEvent(query) => self.statement(&query, log.standalone()).await,
            EventData::XidEvent(_) => self.line("COMMIT;").await,
            EventData::RowsEvent(rows) => {
                let table = log.table(rows.table_id()).ok_or_else(unreadable)?;
                self.changes(session, &rows, table).await
            }
            EventData::RowsQueryEvent(query) => {
                self.line(&format!("-- {}", query.query().replace('\n', "\n-- "))).await
            }
            EventData::IntvarEvent(variable) => {
                let name = match variable.subtype() {
                    IntvarEventType::LAST_INSERT_ID_EVENT => "LAST_INSERT_ID",
                    _ => "INSERT_ID",
                };
                self.line(&format!("SET {name} = {};", variable.value())).await
            }
            EventData::TableMapEvent(_)
            | EventData::FormatDescriptionEvent(_)
            | EventData::RotateEvent(_)
            | EventData::PreviousGtidsEvent(_)
            | EventData::TransactionPayloadEvent(_)
            | EventData::HeartbeatEvent
            | EventData::StopEvent => Ok(()),
            _ => Err(unreadable()),
        }
    }

    async fn statement(&mut self, query: &QueryEvent<'_>, alone: bool) -> Result<(), StepError> {
        let (schema, text) = (query.schema(), query.query());
        let control = matches!(&*text, "BEGIN" | "COMMIT" | "ROLLBACK");
        if !control && !schema.is_empty() && schema != self.schema {
            self.line(&format!("USE {};", name(&schema))).await?;
            self.schema = schema.into_owned();
        }
        if text.contains(';') {
            return self.line(&format!("DELIMITER //\n{text}\n//\nDELIMITER ;")).await;
        }
        self.line(&format!("{text};")).await?;
        if alone { self.line("-- committed by itself").await } else { Ok(()) }
    }

    async fn changes(
        &mut self,
        session: &mut Session,
        rows: &RowsEventData<'_>,
        table: &TableMapEvent<'static>,
    ) -> Result<(), StepError> {
        let key = (table.database_name().into_owned(), table.table_name().into_owned());
        if !self.columns.contains_key(&key) {
            let question = session.dialect.columns_of(&key.0, &key.1);
            let columns: Vec<(String, String)> = session.ask(&question).await?;
            self.columns.insert(key.clone(), columns);
        }
        let known = self.columns.get(&key).filter(|known| {
            usize::try_from(table.columns_count()).is_ok_and(|count| known.len() == count)
        });
        let known = known.cloned().unwrap_or_default();
        let target = format!("{}.{}", name(&key.0), name(&key.1));
        for row in rows.rows(table) {
            let (before, after) = row.map_err(|_| unreadable())?;
            let text = change(&target, before.as_ref(), after.as_ref(), &known)?;
            self.rows += 1;
            self.line(&text).await?;
        }
        Ok(())
    }

    /// Makes the file safe and gives it its name.
    pub(super) async fn end(
        mut self,
        session: &Session,
        gtids: Gtids,
    ) -> Result<Export, StepError> {
        let (transactions, rows) = (self.transactions, self.rows);
        self.line(&format!("\n-- The end: {transactions} transaction(s), {rows} row(s).")).await?;
        let ending = async {
            self.file.flush().await?;
            self.file.get_ref().sync_all().await?;
            tokio::fs::rename(&self.part, &self.path).await?;
            if let Some(directory) = self.path.parent() {
                File::open(directory).await?.sync_all().await?;
            }
            Ok(())
        };
        ending.await.map_err(|error: std::io::Error| unwritable(&self.path, &error))?;
        let watcher = session.exports().watcher.clone();
        let path = self.path.display().to_string();
        Ok(Export { gtids, transactions, rows, watcher, path })
    }

    /// Removes a file that would not hold everything.
    pub(super) async fn discard(self) {
        drop(self.file);
        // Its name says that it is only a part.
        let _ = tokio::fs::remove_file(&self.part).await;
    }

    async fn line(&mut self, text: &str) -> Result<(), StepError> {
        self.bytes += text.len() as u64 + 1;
        if self.bytes > MOST_BYTES {
            let text = format!("its own transactions are more than {MOST_BYTES} bytes");
            return Err(StepError::Failed(text));
        }
        let writing = async {
            self.file.write_all(text.as_bytes()).await?;
            self.file.write_all(b"\n").await
        };
        writing.await.map_err(|error| unwritable(&self.part, &error))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> StepError {
    StepError::Retry(format!("failed to write {}: {error}", path.display()))
}

/// One changed row as a statement.
fn change(
    target: &str,
    before: Option<&BinlogRow>,
    after: Option<&BinlogRow>,
    known: &[(String, String)],
) -> Result<String, StepError> {
    let fields = |row: &BinlogRow| fields(row, known);
    let matching = |row: &BinlogRow| -> Result<String, StepError> {
        let terms = fields(row)?.into_iter().map(|(name, value)| match value.as_str() {
            "NULL" => format!("{name} IS NULL"),
            value => format!("{name} = {value}"),
        });
        Ok(terms.collect::<Vec<_>>().join(" AND "))
    };
    match (before, after) {
        (None, Some(after)) => {
            let (names, values): (Vec<_>, Vec<_>) = fields(after)?.into_iter().unzip();
            let (names, values) = (names.join(", "), values.join(", "));
            Ok(format!("INSERT INTO {target} ({names}) VALUES ({values});"))
        }
        (Some(before), Some(after)) => {
            let set = fields(after)?.into_iter().map(|(name, value)| format!("{name} = {value}"));
            let set = set.collect::<Vec<_>>().join(", ");
            Ok(format!("UPDATE {target} SET {set} WHERE {};", matching(before)?))
        }
        (Some(before), None) => Ok(format!("DELETE FROM {target} WHERE {};", matching(before)?)),
        (None, None) => Err(unreadable()),
    }
}

/// The columns of a row with their values.
fn fields(row: &BinlogRow, known: &[(String, String)]) -> Result<Vec<(String, String)>, StepError> {
    let mut all = Vec::new();
    for (place, column) in row.columns_ref().iter().enumerate() {
        let told = column.name_str();
        // Without names in the log, a column is called by its place in the table.
        let known = match told.strip_prefix('@').map(str::parse::<usize>) {
            Some(Ok(place)) => known.get(place),
            _ => known.iter().find(|(name, _)| *name == told),
        };
        let called = known.map_or(&*told, |(name, _)| name);
        let value = row.as_ref(place).ok_or_else(unreadable)?;
        let kind = known.map_or("", |(_, kind)| kind);
        all.push((name(called), literal(value, column, kind)?));
    }
    Ok(all)
}

fn name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// A value as SQL.
fn literal(value: &BinlogValue<'_>, column: &Column, kind: &str) -> Result<String, StepError> {
    let value = match value {
        BinlogValue::Value(value) => value,
        BinlogValue::Jsonb(json) => {
            let json = serde_json::Value::try_from(json.clone()).map_err(|_| unreadable())?;
            return Ok(text_literal(json.to_string().as_bytes()));
        }
        BinlogValue::JsonDiff(_) => return Err(unreadable()),
    };
    Ok(match (value, column.column_type()) {
        (Value::Int(number), of) if *number < 0 && kind.contains("unsigned") => {
            unsigned(*number, of).to_string()
        }
        (Value::Bytes(text), ColumnType::MYSQL_TYPE_TIMESTAMP2) => {
            format!("FROM_UNIXTIME({})", String::from_utf8_lossy(text))
        }
        (Value::Bytes(bits), ColumnType::MYSQL_TYPE_SET) => {
            bits.iter().rev().fold(0_u64, |all, byte| all << 8 | u64::from(*byte)).to_string()
        }
        (Value::Bytes(text), ColumnType::MYSQL_TYPE_NEWDECIMAL | ColumnType::MYSQL_TYPE_YEAR) => {
            String::from_utf8_lossy(text).into_owned()
        }
        (
            Value::Bytes(bytes),
            ColumnType::MYSQL_TYPE_BIT
            | ColumnType::MYSQL_TYPE_GEOMETRY
            | ColumnType::MYSQL_TYPE_VECTOR,
        ) => hex_literal(bytes),
        (Value::Bytes(bytes), _) if is_binary(kind) => hex_literal(bytes),
        (Value::Bytes(text), _) => text_literal(text),
        (value, _) => value.as_sql(true),
    })
}

fn is_binary(kind: &str) -> bool {
    kind.contains("binary") || kind.contains("blob")
}

/// What a number is that was read as if it had a sign.
fn unsigned(number: i64, of: ColumnType) -> u64 {
    let bits = match of {
        ColumnType::MYSQL_TYPE_TINY => 8,
        ColumnType::MYSQL_TYPE_SHORT => 16,
        ColumnType::MYSQL_TYPE_INT24 => 24,
        ColumnType::MYSQL_TYPE_LONG => 32,
        _ => 64,
    };
    number.cast_unsigned() & (u64::MAX >> (64 - bits))
}

/// Text stays readable; whatever is no text is written as its bytes.
fn text_literal(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        // Most often it is text of a single-byte character set.
        let read: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let read = read.replace("*/", "* /").replace(char::is_control, " ");
        return format!("{} /* {read} */", hex_literal(bytes));
    };
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('\'');
    for letter in text.chars() {
        match letter {
            '\'' => literal.push_str("''"),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\0' => literal.push_str("\\0"),
            '\u{1a}' => literal.push_str("\\Z"),
            letter => literal.push(letter),
        }
    }
    literal.push('\'');
    literal
}

fn hex_literal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("X'{digits}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_readable() {
        assert_eq!(text_literal("it's\n\\".as_bytes()), r"'it''s\n\\'");
        assert_eq!(text_literal(&[0x61, 0xe9, b'*', b'/']), "X'61e92a2f' /* aé* / */");
        assert_eq!(name("a`b"), "`a``b`");
        assert_eq!(unsigned(-1, ColumnType::MYSQL_TYPE_TINY), 255);
        assert_eq!(unsigned(-1, ColumnType::MYSQL_TYPE_INT24), 16_777_215);
        assert_eq!(unsigned(-2, ColumnType::MYSQL_TYPE_LONGLONG), u64::MAX - 1);
    }
}
