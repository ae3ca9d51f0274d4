//! Reading segments back: fetched part by part, each checked, decrypted, decompressed, event by event.

use super::events::{Began, DESCRIPTION, HEADER, MAGIC, beginning, begins};
use super::listing::failed_at;
use crate::decision::backup::archive::segment::Segment;
use crate::decision::backup::manifest::Part;
use crate::decision::topology::Flavor;
use crate::runtime::backup::BackupError;
use crate::runtime::backup::packing::{Identities, IdentityError, Unpacking, unpacking};
use crate::runtime::backup::s3::sha256;
use crate::runtime::backup::target::Target;
use bytes::Bytes;
use mysql_async::binlog::events::{Event, FormatDescriptionEvent};
use mysql_async::binlog::{BinlogChecksumAlg, BinlogVersion};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

/// What is between fetching and unpacking.
const PIPE: usize = 256 << 10;
/// A part whose checksum is wrong is fetched again so often: it may have been damaged on its way.
const TRIES: u32 = 3;
/// No event that describes a log or begins a transaction is larger.
const LARGEST_READ: u64 = 64 << 10;
/// No event is larger: the largest packet there is, and what surrounds it.
const LARGEST_EVENT: u64 = (1 << 30) + (64 << 10);

/// A segment that is being read.
pub(super) struct Opened<'a> {
    segment: &'a Segment,
    plain: Unpacking,
    fetching: Fetching,
    description: FormatDescriptionEvent<'static>,
    /// How many bytes were read.
    pub read: u64,
}

/// The work of fetching; it ends with whoever drops this.
struct Fetching(Option<JoinHandle<Result<(), BackupError>>>);

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(work) = &self.0 {
            work.abort();
        }
    }
}

impl Fetching {
    /// How fetching failed, if it did.
    async fn fault(&mut self) -> Option<BackupError> {
        match self.0.take()?.await {
            Ok(fetched) => fetched.err(),
            Err(_) => Some(BackupError::Unknown("fetching was broken off".to_owned())),
        }
    }
}

/// An event, as far as it was read.
pub(super) enum Piece {
    /// How those that follow are laid out.
    Description(Vec<u8>),
    /// The beginning of a transaction, and what it says.
    Begins(Vec<u8>, Began),
    /// The head of another one; so many bytes follow, to be passed on or over.
    Within(Vec<u8>, u64),
}

impl<'a> Opened<'a> {
    pub(super) async fn new(
        target: &Target,
        segment: &'a Segment,
        identities: &Identities,
    ) -> Result<Opened<'a>, BackupError> {
        let encrypted = !segment.encrypted_to.is_empty();
        if encrypted && identities.is_empty() {
            return Err(IdentityError::Needed(segment.encrypted_to.join(", ")).into());
        }
        let (into, from) = tokio::io::duplex(PIPE);
        let work = fetch(target.clone(), segment.object.clone(), segment.parts.clone(), into);
        let mut fetching = Fetching(Some(tokio::spawn(work)));
        let plain = match unpacking(from, encrypted, identities).await {
            Ok(plain) => plain,
            // What could not be fetched could not be decrypted either.
            Err(error) => return Err(fetching.fault().await.unwrap_or_else(|| error.into())),
        };
        let description = FormatDescriptionEvent::new(BinlogVersion::Version4);
        let mut opened = Opened { segment, plain, fetching, description, read: 0 };
        let mut magic = [0; MAGIC.len()];
        opened.fill(&mut magic).await?;
        if magic != MAGIC {
            return Err(opened.damaged("it is no binary log".to_owned()).await);
        }
        Ok(opened)
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        match self.plain.read_exact(buffer).await {
            Ok(count) => {
                self.read += count as u64;
                Ok(())
            }
            Err(error) => Err(self.damaged(error.to_string()).await),
        }
    }

    /// The next event; none at the end, when all sums were right.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, BackupError> {
        if self.read == self.segment.plain_bytes {
            return self.end().await.map(|()| None);
        }
        let mut bytes = vec![0; HEADER];
        self.fill(&mut bytes).await?;
        let kind = bytes.get(4).copied().unwrap_or_default();
        let size = bytes.get(9..13).and_then(|size| size.try_into().ok()).unwrap_or_default();
        let size = u64::from(u32::from_le_bytes(size));
        let Some(rest) = size.checked_sub(HEADER as u64).filter(|_| size <= LARGEST_EVENT) else {
            return Err(self.damaged(format!("an event of {size} bytes is in it")).await);
        };
        let flavor = self.segment.flavor;
        if kind != DESCRIPTION && !begins(kind, flavor) {
            return Ok(Some(Piece::Within(bytes, rest)));
        }
        if !(5..=LARGEST_READ).contains(&rest) {
            return Err(self.damaged(format!("an event of {size} bytes is in it")).await);
        }
        let mut body = vec![0; usize::try_from(rest).unwrap_or_default()];
        self.fill(&mut body).await?;
        bytes.extend(body);
        match self.understood(&bytes, kind, flavor) {
            Ok(None) => Ok(Some(Piece::Description(bytes))),
            Ok(Some(began)) => Ok(Some(Piece::Begins(bytes, began))),
            Err(what) => Err(self.damaged(what).await),
        }
    }

    /// The transaction that an event begins; none for one that describes the log.
    fn understood(
        &mut self,
        bytes: &[u8],
        kind: u8,
        flavor: Flavor,
    ) -> Result<Option<Began>, String> {
        let event = Event::read(&self.description, bytes).map_err(|error| error.to_string())?;
        if kind != DESCRIPTION {
            return beginning(&event, flavor).map(Some).map_err(|error| error.to_string());
        }
        let description = event.read_event::<FormatDescriptionEvent<'_>>();
        let description = description.map_err(|error| error.to_string())?;
        self.description = description.into_owned().with_footer(event.footer());
        Ok(None)
    }

    /// Whether each event ends with its checksum.
    pub(super) fn has_checksums(&self) -> bool {
        let algorithm = self.description.footer().get_checksum_alg();
        algorithm.is_ok_and(|it| it == Some(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32))
    }

    /// Passes the rest of an event on.
    pub(super) async fn pass_on(
        &mut self,
        bytes: u64,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BackupError> {
        let mut left = bytes;
        let mut buffer = vec![0; PIPE.min(usize::try_from(left).unwrap_or(PIPE))];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIPE).min(buffer.len());
            let room = buffer.get_mut(..most).unwrap_or_default();
            let count = match self.plain.read(room).await {
                Ok(0) => {
                    return Err(self.damaged(format!("it ends after {} bytes", self.read)).await);
                }
                Ok(count) => count,
                Err(error) => return Err(self.damaged(error.to_string()).await),
            };
            let part = buffer.get(..count).unwrap_or_default();
            into.write_all(part).await.map_err(BackupError::io("feeding the server"))?;
            left -= count as u64;
            self.read += count as u64;
        }
        Ok(())
    }

    /// Checks that nothing comes after what was read, and that all sums were right.
    async fn end(&mut self) -> Result<(), BackupError> {
        let mut more = [0; 1];
        match self.plain.read(&mut more).await {
            Ok(0) => self.fetching.fault().await.map_or(Ok(()), Err),
            Ok(_) => {
                let what = format!("it has more than {} bytes", self.segment.plain_bytes);
                Err(self.damaged(what).await)
            }
            Err(error) => Err(self.damaged(error.to_string()).await),
        }
    }

    /// Why it cannot be read on; a fault found while fetching explains all that comes after it.
    async fn damaged(&mut self, what: String) -> BackupError {
        // Fetching ends when nobody reads any more.
        self.plain = Box::new(tokio::io::empty());
        let object = self.segment.object.clone();
        self.fetching.fault().await.unwrap_or(BackupError::Damaged { object, what })
    }
}

/// Fetches part after part and checks each.
async fn fetch(
    target: Target,
    object: String,
    parts: Vec<Part>,
    mut into: DuplexStream,
) -> Result<(), BackupError> {
    let mut offset = 0;
    for (at, part) in parts.iter().enumerate() {
        let bytes = checked(&target, &object, (at, *part), offset).await?;
        offset += part.bytes;
        if into.write_all(&bytes).await.is_err() {
            // Whoever reads has found out more.
            return Ok(());
        }
    }
    Ok(())
}

async fn checked(
    target: &Target,
    object: &str,
    (at, part): (usize, Part),
    offset: u64,
) -> Result<Bytes, BackupError> {
    let mut tries = 1;
    loop {
        let bytes = target.read(object, offset, part.bytes).await;
        let bytes = bytes.map_err(|error| failed_at(target, error))?;
        let sum = sha256(&bytes);
        if sum == part.sha256 {
            return Ok(bytes);
        }
        if tries == TRIES {
            let object = object.to_owned();
            let what = format!(
                "part {}, {} bytes from byte {offset} on, has the checksum {sum} and not {}",
                at + 1,
                part.bytes,
                part.sha256
            );
            return Err(BackupError::Damaged { object, what });
        }
        tries += 1;
    }
}
