//! Cutting a stream into parts and handing each to every target.

use super::buffers::Buffers;
use super::pace::Pace;
use super::target::Piece;
use crate::decision::backup::manifest::{MOST_PARTS, Part, Sha256};
use crate::decision::backup::parts::size_of_part;
use bytes::Bytes;
use sha2::Digest;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

/// Bytes between two looks at the pace.
const STRIDE: u64 = 256 << 10;

/// What was handed on.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub parts: Vec<Part>,
    pub bytes: u64,
    pub sha256: Sha256,
}

/// Why cutting ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoringError {
    #[error("{0}")]
    Stream(#[from] io::Error),
    #[error("it has more than {MOST_PARTS} parts; write a larger part_size")]
    TooManyParts,
    #[error("a part was broken off")]
    BrokenOff,
    #[error("no target is left")]
    NobodyLeft,
}

/// Cuts all that can be read into parts, the first ones of that size, and hands them on.
pub(super) async fn cut(
    mut from: impl AsyncRead + Unpin,
    lanes: &[mpsc::Sender<Piece>],
    part_size: u64,
    mut pace: Pace,
) -> Result<Stored, StoringError> {
    let mut whole = sha2::Sha256::new();
    let (mut parts, mut bytes) = (Vec::new(), 0_u64);
    let buffers = Buffers::default();
    loop {
        // A part is read only when every target has room for it: so few are in memory at a time.
        let mut rooms = Vec::new();
        for lane in lanes {
            rooms.extend(lane.reserve().await.ok());
        }
        if rooms.is_empty() {
            return Err(StoringError::NobodyLeft);
        }
        let size = size_of_part(parts.len(), part_size);
        let part = read_part(&mut from, size, &buffers, &mut pace).await?;
        if part.is_empty() {
            break;
        }
        if parts.len() >= MOST_PARTS {
            return Err(StoringError::TooManyParts);
        }
        let summed;
        (whole, summed) = sums(whole, part.clone()).await?;
        let length = part.len() as u64;
        parts.push(Part { bytes: length, sha256: summed });
        let number = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let piece = Piece { number, offset: bytes, bytes: part, sha256: summed };
        bytes += length;
        for room in rooms {
            room.send(piece.clone());
        }
    }
    Ok(Stored { parts, bytes, sha256: Sha256(whole.finalize().into()) })
}

/// The next bytes of a stream, as many as a part has, fewer only at its end.
async fn read_part(
    from: &mut (impl AsyncRead + Unpin),
    part_size: u64,
    buffers: &Buffers,
    pace: &mut Pace,
) -> io::Result<Bytes> {
    let size = usize::try_from(part_size).map_err(io::Error::other)?;
    let mut part = buffers.take(size);
    part.clear();
    while part.len() < size {
        let left = (size - part.len()) as u64;
        let mut limited = (&mut *from).take(left.min(STRIDE));
        let count = limited.read_buf(&mut part).await?;
        if count == 0 {
            break;
        }
        let wait = pace.wait_for(count as u64);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
    Ok(buffers.lend(part))
}

/// Adds a part to the sum of the whole, beside its own; both take a while.
async fn sums(
    mut whole: sha2::Sha256,
    part: Bytes,
) -> Result<(sha2::Sha256, Sha256), StoringError> {
    let summing = tokio::task::spawn_blocking(move || {
        whole.update(&part);
        (whole, Sha256(sha2::Sha256::digest(&part).into()))
    });
    summing.await.map_err(|_| StoringError::BrokenOff)
}
