//! The sending half of a copy: what a program prints, in frames, as fast as somebody takes them.

use super::copying::Copied;
use super::frames::{self, End, HEADER, LARGEST_PIECE};
use crate::runtime::backup::BackupError;
use crate::runtime::backup::tool::widen;
use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::Digest;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// So many frames may wait to be taken.
pub(super) const WAITING: usize = 4;
/// What the pipe holds that the copy comes through.
const PIPE: usize = 1 << 20;
/// Between two signs of life.
const BREATH: Duration = Duration::from_secs(2);

/// Who takes the frames of one copy.
#[derive(Debug)]
pub(super) struct Sending {
    frames: mpsc::Sender<Bytes>,
    sum: Digest,
    sent: Arc<AtomicU64>,
}

impl Sending {
    pub(super) fn new(frames: mpsc::Sender<Bytes>, sent: Arc<AtomicU64>) -> Sending {
        sent.store(0, Ordering::Relaxed);
        Sending { frames, sum: frames::sum(), sent }
    }

    pub(super) async fn send(&self, frame: Bytes) -> Result<(), BackupError> {
        let gone = |_| BackupError::Unknown("nobody takes the copy any more".to_owned());
        self.frames.send(frame).await.map_err(gone)
    }

    /// Passes on all that can be read.
    pub(super) async fn pass_on(
        &mut self,
        mut from: impl AsyncRead + AsFd + Unpin,
    ) -> Result<(), BackupError> {
        widen(&from, PIPE);
        loop {
            let mut piece = BytesMut::with_capacity(HEADER + LARGEST_PIECE);
            piece.put_bytes(0, HEADER);
            while piece.len() < HEADER + LARGEST_PIECE {
                let room = (HEADER + LARGEST_PIECE - piece.len()) as u64;
                let read = (&mut from).take(room).read_buf(&mut piece).await;
                if read.map_err(BackupError::io("reading the copy"))? == 0 {
                    break;
                }
            }
            let data = &piece[HEADER..];
            if data.is_empty() {
                return Ok(());
            }
            self.sum.update(data);
            self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.send(frames::data(piece)).await?;
        }
    }

    /// What stands behind the data.
    pub(super) fn end(&self, copied: Copied) -> End {
        let Copied { position, at_most } = copied;
        let bytes = self.sent.load(Ordering::Relaxed);
        End { bytes, crc64: self.sum.finalize(), position, at_most }
    }

    /// Lets whoever takes the frames know that the agent lives while it has no data yet.
    pub(super) fn breathe(frames: mpsc::Sender<Bytes>) -> Breath {
        Breath(tokio::spawn(async move {
            loop {
                tokio::time::sleep(BREATH).await;
                // When no frame fits, data is on its way.
                let _ = frames.try_send(frames::alive());
            }
        }))
    }
}

/// Signs of life, until it is dropped.
#[derive(Debug)]
pub(super) struct Breath(JoinHandle<()>);

impl Breath {
    /// The last one has been sent.
    pub(super) async fn end(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Breath {
    fn drop(&mut self) {
        self.0.abort();
    }
}
