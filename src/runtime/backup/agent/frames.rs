//! What an agent sends: a head, the data in pieces, and an end that says that it is whole.
//!
//! ```text
//! frame   kind (1 byte), length (4 bytes, the highest first), so many bytes
//! stream  head, then data and signs of life in any order, then end or failure, then nothing
//! ```
//!
//! A connection that ends before the end did carries no backup, whatever came through it before.

use crate::decision::backup::manifest::Method;
use crate::decision::gtid::Gtids;
use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The newest form of the stream, and of what an agent says of itself.
pub(super) const FORMAT: u32 = 1;
/// The most data in one frame.
pub(super) const LARGEST_PIECE: usize = 256 << 10;
/// The bytes in front of what a frame carries.
pub(super) const HEADER: usize = 5;
/// The longest head or end: a position of tens of thousands of intervals fits.
const MOST_TEXT: usize = 4 << 20;

const HEAD: u8 = b'H';
const DATA: u8 = b'D';
const ALIVE: u8 = b'A';
const END: u8 = b'E';
const FAILED: u8 = b'F';

/// What stands before the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runtime::backup) struct Head {
    pub format: u32,
    pub method: Method,
    /// What copies.
    pub tool: String,
}

/// What stands behind the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runtime::backup) struct End {
    /// How much data there was.
    pub bytes: u64,
    /// Its checksum, CRC-64/NVME: against bytes that change on their way. Against people there is TLS, and
    /// SHA-256 in the manifest.
    pub crc64: u64,
    /// Every transaction that is in it.
    pub position: Gtids,
    /// Where that is not known exactly: nothing is in it beside these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Gtids>,
}

/// Why a stream is no backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    #[error("{0}")]
    Failed(String),
    #[error("the connection broke off after {0} bytes")]
    BrokenOff(u64),
    #[error("it sent nothing for {0} s")]
    Silent(u64),
    #[error("it sent what no agent sends: {0}")]
    Strange(String),
    #[error("what it sent was changed on its way")]
    Changed,
}

/// What the data is summed up with.
pub(super) fn sum() -> Digest {
    Digest::new(CrcAlgorithm::Crc64Nvme)
}

pub(super) fn head(head: &Head) -> Bytes {
    text(HEAD, head)
}

pub(super) fn end(end: &End) -> Bytes {
    text(END, end)
}

pub(super) fn failed(why: &str) -> Bytes {
    let why: String = why.chars().take(1000).collect();
    framed(FAILED, why.as_bytes())
}

pub(super) fn alive() -> Bytes {
    framed(ALIVE, &[])
}

/// A frame of data; `piece` begins with room for the header.
pub(super) fn data(mut piece: BytesMut) -> Bytes {
    let length = u32::try_from(piece.len() - HEADER).unwrap_or(u32::MAX);
    let mut header = &mut piece[..HEADER];
    header.put_u8(DATA);
    header.put_u32(length);
    piece.freeze()
}

fn text(kind: u8, of: &impl Serialize) -> Bytes {
    // Numbers and texts can always be written.
    framed(kind, &serde_json::to_vec(of).unwrap_or_default())
}

fn framed(kind: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + bytes.len());
    frame.put_u8(kind);
    frame.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    frame.put_slice(bytes);
    frame.freeze()
}

/// A stream that is being read, of which nothing is believed before its end.
#[derive(Debug)]
pub(super) struct Incoming<S> {
    chunks: S,
    chunk: Bytes,
    /// What is left of the frame of data that is being read.
    left: usize,
    sum: Digest,
    bytes: u64,
    limit: std::time::Duration,
}

/// The next of a stream.
#[derive(Debug)]
pub(super) enum Next {
    Data(Bytes),
    End(End),
}

impl<S, E> Incoming<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Reads the head. Whoever is silent for longer than `limit` is gone.
    pub(super) async fn begin(
        chunks: S,
        limit: std::time::Duration,
    ) -> Result<(Head, Incoming<S>), StreamError> {
        let sum = sum();
        let mut incoming = Incoming { chunks, chunk: Bytes::new(), left: 0, sum, bytes: 0, limit };
        loop {
            let (kind, length) = incoming.header().await?;
            match kind {
                HEAD => {
                    let head: Head = incoming.text(length).await?;
                    if head.format > FORMAT {
                        let what = format!("format {}; use a newer version here", head.format);
                        return Err(StreamError::Strange(what));
                    }
                    return Ok((head, incoming));
                }
                ALIVE if length == 0 => {}
                FAILED => return Err(incoming.failure(length).await?),
                kind => return Err(StreamError::Strange(format!("it begins with kind {kind}"))),
            }
        }
    }

    /// The next data, or the end when all of it came through as it was sent.
    pub(super) async fn next(&mut self) -> Result<Next, StreamError> {
        while self.left == 0 {
            let (kind, length) = self.header().await?;
            match kind {
                DATA if length <= LARGEST_PIECE => self.left = length,
                ALIVE if length == 0 => {}
                END => {
                    let end = self.text(length).await?;
                    return self.ended(end).await;
                }
                FAILED => return Err(self.failure(length).await?),
                kind => {
                    let what = format!("kind {kind} of {length} bytes");
                    return Err(StreamError::Strange(what));
                }
            }
        }
        let piece = self.some(self.left).await?;
        self.left -= piece.len();
        self.bytes += piece.len() as u64;
        self.sum.update(&piece);
        Ok(Next::Data(piece))
    }

    async fn ended(&mut self, end: End) -> Result<Next, StreamError> {
        if end.bytes != self.bytes || end.crc64 != self.sum.finalize() {
            return Err(StreamError::Changed);
        }
        match self.some(1).await {
            Err(StreamError::BrokenOff(_)) => Ok(Next::End(end)),
            Err(error) => Err(error),
            Ok(_) => Err(StreamError::Strange("more after its end".to_owned())),
        }
    }

    async fn header(&mut self) -> Result<(u8, usize), StreamError> {
        let header = self.exactly(HEADER).await?;
        let length = header[1..].iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        Ok((header[0], length))
    }

    async fn text<T: DeserializeOwned>(&mut self, length: usize) -> Result<T, StreamError> {
        let strange = |what: String| StreamError::Strange(what.chars().take(200).collect());
        if length > MOST_TEXT {
            return Err(strange(format!("a text of {length} bytes")));
        }
        let bytes = self.exactly(length).await?;
        serde_json::from_slice(&bytes).map_err(|error| strange(error.to_string()))
    }

    async fn failure(&mut self, length: usize) -> Result<StreamError, StreamError> {
        let bytes = self.exactly(length.min(MOST_TEXT)).await?;
        Ok(StreamError::Failed(String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn exactly(&mut self, count: usize) -> Result<BytesMut, StreamError> {
        let mut all = BytesMut::new();
        while all.len() < count {
            let some = self.some(count - all.len()).await?;
            all.extend_from_slice(&some);
        }
        Ok(all)
    }

    /// The next bytes, at least one and at most so many.
    async fn some(&mut self, most: usize) -> Result<Bytes, StreamError> {
        while self.chunk.is_empty() {
            match tokio::time::timeout(self.limit, self.chunks.next()).await {
                Ok(Some(Ok(chunk))) => self.chunk = chunk,
                Ok(Some(Err(_)) | None) => return Err(StreamError::BrokenOff(self.bytes)),
                Err(_) => return Err(StreamError::Silent(self.limit.as_secs())),
            }
        }
        Ok(self.chunk.split_to(most.min(self.chunk.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::topology::Flavor;
    use futures_util::stream;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(5);

    fn piece(bytes: &[u8]) -> Bytes {
        let mut piece = BytesMut::zeroed(HEADER);
        piece.extend_from_slice(bytes);
        data(piece)
    }

    /// A whole stream with this data.
    fn whole(bytes: &[u8]) -> Vec<u8> {
        let tool = "tool".to_owned();
        let mut all = head(&Head { format: FORMAT, method: Method::PhysicalClone, tool }).to_vec();
        let mut sum = sum();
        sum.update(bytes);
        for part in bytes.chunks(1000) {
            all.extend(piece(part));
            all.extend(alive());
        }
        let position = Gtids::parse(Flavor::MariaDb, "0-1-7").unwrap();
        let bytes = bytes.len() as u64;
        all.extend(end(&End { bytes, crc64: sum.finalize(), position, at_most: None }));
        all
    }

    async fn read(sent: Vec<u8>, cut: usize) -> Result<Vec<u8>, StreamError> {
        let chunks = sent.chunks(cut).map(|it| Ok::<_, ()>(Bytes::copy_from_slice(it)));
        let chunks = stream::iter(chunks.collect::<Vec<_>>());
        let (_, mut incoming) = Incoming::begin(chunks, LIMIT).await?;
        let mut found = Vec::new();
        loop {
            match incoming.next().await? {
                Next::Data(bytes) => found.extend(bytes),
                Next::End(_) => return Ok(found),
            }
        }
    }

    #[tokio::test]
    async fn what_is_sent_comes_through_however_it_is_cut() {
        let bytes: Vec<u8> = (0..5_000_u32).flat_map(u32::to_le_bytes).collect();
        for cut in [1, 3, 999, 1 << 20] {
            assert_eq!(read(whole(&bytes), cut).await, Ok(bytes.clone()), "cut at {cut}");
        }
        assert_eq!(read(whole(&[]), 7).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn no_part_of_a_stream_is_a_backup() {
        let sent = whole(&[7; 3000]);
        for length in 0..sent.len() {
            let read = read(sent[..length].to_vec(), 1 << 20).await;
            assert!(matches!(read, Err(StreamError::BrokenOff(_))), "{length}: {read:?}");
        }
        let mut more = sent.clone();
        more.push(0);
        assert!(matches!(read(more, 100).await, Err(StreamError::Strange(_))));
    }

    #[tokio::test]
    async fn what_was_changed_is_noticed() {
        let sent = whole(&[7; 3000]);
        for at in 0..sent.len() {
            let mut changed = sent.clone();
            changed[at] ^= 1;
            // What an agent says of its tool is not summed up; the data and what is said of it is.
            let read = read(changed, 1 << 20).await;
            assert!(read.is_err() || read == Ok(vec![7; 3000]), "{at} went unnoticed");
        }
        let mut failing = whole(&[])[..40].to_vec();
        failing.clear();
        failing.extend(failed("the disk is gone"));
        assert_eq!(read(failing, 3).await, Err(StreamError::Failed("the disk is gone".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_silent_is_gone() {
        let chunks = stream::pending::<Result<Bytes, ()>>();
        let begun = Incoming::begin(chunks, LIMIT).await;
        assert_eq!(begun.map(|(head, _)| head), Err(StreamError::Silent(5)));
    }
}
