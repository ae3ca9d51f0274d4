//! Cutting a stream into parts and storing them, a few at a time.

use super::target::{Piece, TargetError, Upload};
use crate::decision::backup::manifest::{MOST_PARTS, Part, Sha256};
use bytes::{Bytes, BytesMut};
use sha2::Digest;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

/// So many parts are on their way at the same time; beside them one is being filled.
const ON_THE_WAY: usize = 2;

/// What was stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub parts: Vec<Part>,
    pub bytes: u64,
    pub sha256: Sha256,
}

/// Why storing ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoringError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("{0}")]
    Stream(#[from] io::Error),
    #[error("it has more than {MOST_PARTS} parts; write a larger part_size")]
    TooManyParts,
    #[error("a part was broken off")]
    BrokenOff,
}

/// Parts on their way, each with its length. Whoever gives up must end them before the upload is aborted:
/// a part that arrives later would stay.
pub(super) type Sending = JoinSet<Result<u64, TargetError>>;

/// Stores all that can be read, in parts of that size.
pub(super) async fn store(
    mut from: impl AsyncRead + Unpin,
    (upload, sending): (&Arc<Upload>, &mut Sending),
    part_size: u64,
    stored: impl Fn(u64),
) -> Result<Stored, StoringError> {
    let mut whole = sha2::Sha256::new();
    let (mut parts, mut bytes) = (Vec::new(), 0_u64);
    let mut arrived = 0;
    loop {
        let part = read_part(&mut from, part_size).await?;
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
        while sending.len() >= ON_THE_WAY {
            arrived += one_of(sending).await?;
            stored(arrived);
        }
        let upload = upload.clone();
        sending.spawn(async move { upload.part(&piece).await.map(|()| length) });
    }
    while !sending.is_empty() {
        arrived += one_of(sending).await?;
        stored(arrived);
    }
    Ok(Stored { parts, bytes, sha256: Sha256(whole.finalize().into()) })
}

async fn one_of(sending: &mut Sending) -> Result<u64, StoringError> {
    match sending.join_next().await {
        Some(Ok(sent)) => Ok(sent?),
        Some(Err(_)) => Err(StoringError::BrokenOff),
        None => Ok(0),
    }
}

/// The next bytes of a stream, as many as a part has, fewer only at its end.
async fn read_part(from: &mut (impl AsyncRead + Unpin), part_size: u64) -> io::Result<Bytes> {
    let size = usize::try_from(part_size).map_err(io::Error::other)?;
    let mut part = BytesMut::with_capacity(size);
    let mut limited = from.take(part_size);
    while part.len() < size {
        if limited.read_buf(&mut part).await? == 0 {
            break;
        }
    }
    Ok(part.freeze())
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
