//! The segment that is being filled: whole transactions in a file that nobody else sees.

use super::events::{Began, DESCRIPTION, HEADER, MAGIC};
use crate::clock::{Moment, WallTime};
use crate::decision::backup::archive::names::Beginning;
use crate::decision::gtid::Gtids;
use crate::decision::topology::{Flavor, ServerName, Version};
use mysql_async::binlog::BinlogVersion;
use mysql_async::binlog::events::Event;
use std::io::{self, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};

/// Where in the event that describes a log it says when the server was started, after the header.
const CREATED: std::ops::Range<usize> = 52..56;
const BUFFER: usize = 128 << 10;

/// Where the transactions of a segment come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin {
    pub server: ServerName,
    pub flavor: Flavor,
    pub version: Version,
}

/// What a segment begins with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub begins: Beginning,
    pub from: Gtids,
    pub lost: Option<Gtids>,
    pub missing: Option<Gtids>,
}

impl Head {
    /// What a segment begins with when nothing was stored since it was to begin with `before`.
    pub(super) fn after(mut self, before: &Head) -> Head {
        match (before.begins, self.begins) {
            (Beginning::Fork, Beginning::Fork) => {
                self.lost = self.lost.zip(before.lost.clone()).map(|(a, b)| a.union(&b));
            }
            (Beginning::Start | Beginning::Gap, Beginning::Fork) => {
                self.begins = before.begins;
                (self.lost, self.missing) = (None, before.missing.clone());
            }
            _ => {}
        }
        self
    }
}

/// Transactions that are not stored yet.
#[derive(Debug)]
pub(super) struct Spool {
    file: BufWriter<File>,
    /// How the events are laid out, as it was told last, and as the file says at its end.
    description: Option<Vec<u8>>,
    described: Option<Vec<u8>>,
    /// All bytes, and those up to the end of the last whole transaction.
    written: u64,
    whole: u64,
    /// The transaction that is not whole yet.
    open: Option<Began>,
    pub head: Head,
    pub origin: Option<Origin>,
    pub gtids: Gtids,
    pub transactions: u64,
    /// The earliest and the latest commit.
    pub first: WallTime,
    pub last: WallTime,
    /// When the first transaction came.
    pub since: Option<Moment>,
}

impl Spool {
    /// An empty one, in that directory.
    pub(super) fn create(directory: &Path, number: u32, head: Head) -> io::Result<Spool> {
        let path = directory.join(format!("regent-segment-{}-{number:08x}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // It lives as long as this process has it open.
        std::fs::remove_file(&path)?;
        Ok(Spool {
            file: BufWriter::with_capacity(BUFFER, File::from_std(file)),
            description: None,
            described: None,
            written: 0,
            whole: 0,
            open: None,
            gtids: Gtids::empty(head.from.flavor()),
            head,
            origin: None,
            transactions: 0,
            first: WallTime::default(),
            last: WallTime::default(),
            since: None,
        })
    }

    /// Takes in how the events that follow are laid out.
    pub(super) async fn describe(&mut self, event: &Event) -> io::Result<()> {
        self.forget_part().await?;
        self.description = Some(plain_description(event)?);
        Ok(())
    }

    /// Begins a transaction; the one before it is complete.
    pub(super) async fn begin(&mut self, event: &Event, began: Began) -> io::Result<()> {
        self.end();
        if self.written == 0 {
            self.write(&MAGIC).await?;
        }
        if self.described != self.description {
            let description = self.description.clone();
            self.write(description.as_deref().unwrap_or_default()).await?;
            self.described = description;
        }
        self.open = Some(began);
        self.append(event).await
    }

    /// Takes in a part of the transaction.
    pub(super) async fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + event.data().len() + 4);
        event.write(BinlogVersion::Version4, &mut bytes)?;
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The transaction is complete.
    pub(super) fn end(&mut self) -> Option<Gtids> {
        let Began { gtid, micros, .. } = self.open.take()?;
        let at = WallTime(micros / 1_000);
        self.first = if self.transactions == 0 { at } else { self.first.min(at) };
        self.last = self.last.max(at);
        self.gtids.add(&gtid);
        self.transactions += 1;
        self.whole = self.written;
        Some(gtid)
    }

    /// Throws away what there is of a transaction that is not whole.
    pub(super) async fn forget_part(&mut self) -> io::Result<()> {
        self.open = None;
        if self.written > self.whole {
            self.file.flush().await?;
            self.file.get_mut().set_len(self.whole).await?;
            self.file.seek(SeekFrom::Start(self.whole)).await?;
            self.written = self.whole;
            // The part may have begun with a description.
            self.described = None;
        }
        Ok(())
    }

    /// Whether a transaction is under way.
    pub(super) fn is_within(&self) -> bool {
        self.open.is_some()
    }

    /// How many bytes of whole transactions there are.
    pub(super) fn bytes(&self) -> u64 {
        self.whole
    }

    /// Everything up to the end of its last whole transaction.
    pub(super) fn to(&self) -> Gtids {
        self.head.from.union(&self.gtids)
    }

    /// The file, from its beginning; [`Spool::bytes`] of it count.
    pub(super) async fn rewind(&mut self) -> io::Result<&mut File> {
        self.forget_part().await?;
        self.file.flush().await?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0)).await?;
        Ok(file)
    }

    /// Begins the next segment.
    pub(super) async fn clear(&mut self, head: Head) -> io::Result<()> {
        self.forget_part().await?;
        self.file.flush().await?;
        self.file.get_mut().set_len(0).await?;
        self.file.seek(SeekFrom::Start(0)).await?;
        (self.written, self.whole, self.transactions) = (0, 0, 0);
        self.gtids = Gtids::empty(head.from.flavor());
        self.head = head;
        (self.described, self.origin, self.since) = (None, None, None);
        (self.first, self.last) = (WallTime::default(), WallTime::default());
        Ok(())
    }
}

/// The event that describes a log, without what is particular to one file of it: that the server was
/// started there would end temporary tables which later events need.
fn plain_description(event: &Event) -> io::Result<Vec<u8>> {
    let mut data = event.data().to_vec();
    if let Some(created) = data.get_mut(CREATED) {
        created.fill(0);
    }
    let algorithm = event.footer().get_checksum_alg();
    let algorithm = algorithm.map_err(|error| io::Error::other(error.to_string()))?;
    let footer = if algorithm.is_some() { 5 } else { 0 };
    let size = u32::try_from(HEADER + data.len() + footer).map_err(io::Error::other)?;
    let mut bytes = vec![0; 4];
    bytes.push(DESCRIPTION);
    bytes.extend(event.header().server_id().to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(data);
    if let Some(algorithm) = algorithm {
        bytes.push(algorithm as u8);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    }
    Ok(bytes)
}
