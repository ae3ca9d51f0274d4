//! One target's share of the work: parts come in as the dump makes them, and go out as the target takes
//! them. What it does not take in time waits in the spool, so that the dump goes on.

use super::pace::Pace;
use super::progress::Report;
use super::spool::{Spooled, Waiting};
use super::target::{Piece, Target, TargetError, Upload};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// So many parts are on their way at the same time.
const ON_THE_WAY: usize = 2;
/// Parts of this size go one by one: they are in memory. Those of a file do so anyway, as two that write to it
/// only wait for each other.
const LARGE: u64 = 64 << 20;
/// A part that cannot go for so long is spooled, and the next ones at once, until one has gone.
const HURRY: Duration = Duration::from_secs(5);

/// One target that parts are sent to.
#[derive(Debug)]
pub(super) struct Lane {
    target: Target,
    object: String,
    report: Report,
    pace: Pace,
    upload: Arc<OnceCell<Arc<Upload>>>,
    sending: JoinSet<Result<Sent, TargetError>>,
    /// The part that came last, as long as it cannot go.
    waiting: Option<Piece>,
    spooled: Option<Waiting>,
    /// Nothing went since a part was waited for in vain.
    stalled: bool,
    stored: u64,
}

/// A part that is stored.
#[derive(Debug)]
struct Sent {
    bytes: u64,
    /// Its file, if it has one.
    spooled: Option<Spooled>,
}

impl Lane {
    pub(super) fn new(
        target: Target,
        object: String,
        report: Report,
        pace: Pace,
        spooled: Option<Waiting>,
    ) -> Lane {
        Lane {
            target: target.told(report.clone()),
            object,
            report,
            pace,
            upload: Arc::default(),
            sending: JoinSet::new(),
            waiting: None,
            spooled,
            stalled: false,
            stored: 0,
        }
    }

    /// Sends all parts that come, and says when the first can. Whatever fails, or when somebody stops it,
    /// nothing is left of them.
    pub(super) async fn run(
        mut self,
        mut pieces: mpsc::Receiver<Piece>,
        ready: oneshot::Sender<()>,
        stop: CancellationToken,
    ) -> Result<Arc<Upload>, TargetError> {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Err(TargetError::Stopped),
            ended = self.send_all(&mut pieces, ready) => ended,
        };
        let error = match (ended, self.upload.get()) {
            (Ok(()), Some(upload)) => return Ok(upload.clone()),
            (Ok(()), None) => TargetError::Stopped,
            (Err(error), _) => error,
        };
        // Nobody need wait for room here any more.
        pieces.close();
        self.report.failed(&error);
        // A part that arrives later would stay.
        self.sending.shutdown().await;
        if let Some(upload) = self.upload.get() {
            abandon(upload, &self.object).await;
        }
        Err(error)
    }

    async fn send_all(
        &mut self,
        pieces: &mut mpsc::Receiver<Piece>,
        ready: oneshot::Sender<()>,
    ) -> Result<(), TargetError> {
        self.begin(ready);
        let mut more = true;
        loop {
            self.fill_slots();
            let idle = self.waiting.is_none() && self.sending.is_empty();
            if !more && idle {
                return Ok(());
            }
            let spools = self.may_spool();
            let hurry = if self.stalled { Duration::ZERO } else { HURRY };
            tokio::select! {
                biased;
                Some(sent) = self.sending.join_next() => self.arrived(sent)?,
                piece = pieces.recv(), if more && self.waiting.is_none() => match piece {
                    Some(piece) => self.waiting = Some(piece),
                    None => more = false,
                },
                () = tokio::time::sleep(hurry), if spools => self.spool().await,
            }
        }
    }

    /// Begins the object beside everything else: with a spool, parts need not wait for it.
    fn begin(&mut self, ready: oneshot::Sender<()>) {
        let (cell, target, object) =
            (self.upload.clone(), self.target.clone(), self.object.clone());
        self.sending.spawn(async move {
            begun(&cell, &target, &object).await?;
            // Nobody may be waiting for it any more.
            let _ = ready.send(());
            Ok(Sent { bytes: 0, spooled: None })
        });
    }

    /// Sends what waits in memory first, then what waits in files.
    fn fill_slots(&mut self) {
        loop {
            let next = self.waiting.as_ref().map(|piece| piece.bytes.len() as u64);
            let alone = !self.target.is_far() || next.is_some_and(|bytes| bytes >= LARGE);
            let slots = if alone { 1 } else { ON_THE_WAY };
            if self.sending.len() >= slots {
                return;
            }
            if let Some(piece) = self.waiting.take() {
                self.send(Going::Piece(piece));
            } else if let Some(part) = self.spooled.as_mut().and_then(Waiting::next) {
                self.send(Going::Spooled(part));
            } else {
                return;
            }
        }
    }

    fn send(&mut self, going: Going) {
        let wait = self.pace.wait_for(going.bytes());
        let (cell, target, object) =
            (self.upload.clone(), self.target.clone(), self.object.clone());
        self.sending.spawn(async move {
            tokio::time::sleep(wait).await;
            let upload = begun(&cell, &target, &object).await?;
            let (piece, spooled) = match going {
                Going::Piece(piece) => (piece, None),
                Going::Spooled(part) => (part.read().await?, Some(part)),
            };
            upload.part(&piece).await?;
            Ok(Sent { bytes: piece.bytes.len() as u64, spooled })
        });
    }

    fn arrived(
        &mut self,
        sent: Result<Result<Sent, TargetError>, JoinError>,
    ) -> Result<(), TargetError> {
        let sent = sent.map_err(|_| TargetError::Refused {
            object: self.object.clone(),
            what: "the work on it was broken off".to_owned(),
        })??;
        self.stored += sent.bytes;
        self.stalled = false;
        if let (Some(part), Some(waiting)) = (&sent.spooled, &mut self.spooled) {
            waiting.sent(part);
        }
        self.tell();
        Ok(())
    }

    fn may_spool(&self) -> bool {
        let bytes = self.waiting.as_ref().map(|piece| piece.bytes.len() as u64);
        let room = |bytes| self.spooled.as_ref().is_some_and(|it| it.has_room(bytes));
        bytes.is_some_and(room)
    }

    async fn spool(&mut self) {
        self.stalled = true;
        if let (Some(piece), Some(spooled)) = (self.waiting.take(), &mut self.spooled) {
            self.waiting = spooled.add(piece).await.err();
        }
        self.tell();
    }

    fn tell(&self) {
        self.report.stored(self.stored, self.spooled.as_ref().map_or(0, Waiting::bytes));
    }
}

/// A part on its way, from memory or from a file.
#[derive(Debug)]
enum Going {
    Piece(Piece),
    Spooled(Spooled),
}

impl Going {
    fn bytes(&self) -> u64 {
        match self {
            Going::Piece(piece) => piece.bytes.len() as u64,
            Going::Spooled(part) => part.bytes,
        }
    }
}

/// The object that all parts belong to; whoever needs it first begins it.
async fn begun(
    cell: &OnceCell<Arc<Upload>>,
    target: &Target,
    object: &str,
) -> Result<Arc<Upload>, TargetError> {
    let begun = cell.get_or_try_init(|| async { target.begin(object).await.map(Arc::new) });
    begun.await.cloned()
}

/// Removes the parts of an object that will not be finished.
pub(super) async fn abandon(upload: &Upload, object: &str) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(object, %error, "what was stored of it could not be removed");
    }
}
