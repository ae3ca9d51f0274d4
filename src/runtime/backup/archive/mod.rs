//! Archiving a cluster's binary log: from whichever server has it, without a gap, as long as it lasts.
//!
//! Where it goes on is told from the target alone: where its last segment ends.

mod dividing;
mod events;
mod feeding;
mod finding;
mod listing;
mod onto;
mod reading;
mod removing;
pub mod replay;
mod spool;
mod storing;
mod stream;
mod tables;

pub use listing::{archived, recoverable, segment, way};
pub use removing::{Removed, remove_superfluous};

use super::BackupError;
use super::target::Target;
use crate::clock::{Clock, Moment, WallTime};
use crate::config::ClusterConfig;
use crate::config::backups::Backups;
use crate::decision::backup::archive::names::Beginning;
use crate::decision::gtid::Gtids;
use crate::decision::topology::{ServerName, Timing};
use events::Seen;
use finding::Found;
use serde::Serialize;
use spool::{Head, Origin, Spool};
use std::time::Duration;
use storing::Place;
use stream::{Reading, Refusal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a segment is old enough to be stored.
const TICK: Duration = Duration::from_millis(500);
/// How often it is looked whether the source is still one to read from.
const LOOK: Duration = Duration::from_secs(5);
/// Between two attempts to find a source, or to store a segment, at first and at the most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long it is tried to store the last segment.
const LAST_ATTEMPT: Duration = Duration::from_secs(30);

/// What to archive, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The cluster.
    pub cluster: &'a ClusterConfig,
    /// How it is backed up.
    pub backups: &'a Backups,
    /// Where to.
    pub target: &'a Target,
    /// How long servers may take to answer.
    pub timing: Timing,
    /// The clock.
    pub clock: Clock,
}

/// How far archiving is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Archiving {
    /// The server that is read, while there is one.
    pub source: Option<ServerName>,
    /// How many segments were stored.
    pub segments: u64,
    /// How many transactions these have.
    pub transactions: u64,
    /// How many bytes these take.
    pub bytes: u64,
    /// How many transactions wait to be stored.
    pub waiting: u64,
    /// The latest commit that was read.
    pub last_commit: Option<WallTime>,
    /// Every transaction that is stored.
    pub stored: Option<Gtids>,
    /// How often the servers had purged what came next.
    pub gaps: u64,
    /// How often a failover had lost what was archived.
    pub forks: u64,
    /// What keeps it from going on at the moment.
    pub trouble: Option<String>,
    /// Since when.
    pub since: Option<WallTime>,
    /// How often something kept it from going on.
    pub errors: u64,
    /// Up to when nothing is missing that was committed.
    pub reached: Option<WallTime>,
    /// Whether all is stored that was committed when it was looked last.
    pub complete: bool,
    /// How many holes the archive has.
    pub holes: u64,
}

impl Archiving {
    fn hindered(&mut self, why: String, at: WallTime) {
        self.since = self.since.filter(|_| self.trouble.is_some()).or(Some(at));
        self.trouble = Some(why);
        self.errors += 1;
    }

    fn goes_on(&mut self) {
        (self.trouble, self.since) = (None, None);
    }

    fn reaches(&mut self, at: WallTime) {
        self.reached = self.reached.max(Some(at));
    }
}

/// Archives until `stop` ends, or for as long as nobody else archives to the same place. Everything that was
/// read whole is stored then.
pub async fn archive(
    order: &Order<'_>,
    progress: &watch::Sender<Archiving>,
    stop: impl Future<Output = ()>,
) -> Result<Archiving, BackupError> {
    let mut archiver = Archiver::begin(order, progress).await?;
    let token = CancellationToken::new();
    let ended = {
        let running = archiver.run(&token);
        tokio::pin!(running, stop);
        tokio::select! {
            ended = &mut running => ended,
            () = &mut stop => {
                token.cancel();
                running.await
            }
        }
    };
    ended?;
    Ok(progress.borrow().clone())
}

/// Why a source is not read any more.
enum Ended {
    Stopped,
    Left(String),
}

struct Archiver<'a> {
    order: &'a Order<'a>,
    progress: &'a watch::Sender<Archiving>,
    place: Place<'a>,
    /// The number of the next segment.
    number: u64,
    /// Every transaction that was read; none as long as it is not known where to begin.
    position: Option<Gtids>,
    spool: Option<Spool>,
    /// This reader's own number among the cluster's servers.
    own: u32,
    /// Whether the transaction being read was read before.
    passing_over: bool,
    /// When something was last stored, or found to be archived.
    settled: Moment,
    /// When it was last looked whether that is all.
    compared: Moment,
}

impl<'a> Archiver<'a> {
    async fn begin(
        order: &'a Order<'a>,
        progress: &'a watch::Sender<Archiving>,
    ) -> Result<Archiver<'a>, BackupError> {
        let cluster = &order.cluster.spec.name;
        let now = order.clock.now();
        let mixed = now.wall.0.wrapping_mul(0x9e37_79b9) ^ u64::from(std::process::id()) << 7;
        let own = 0xE000_0000 | u32::try_from(mixed & 0x0FFF_FFFF).unwrap_or(0);
        let Order { backups, target, clock, .. } = *order;
        let place = Place { cluster, backups, target, clock, writer: own };
        let archive = archived(order.target, cluster).await?;
        let (number, position) = match archive.segments.last() {
            Some(last) => {
                let last = segment(order.target, cluster, last).await?;
                (last.name.number + 1, Some(last.to))
            }
            None => (1, None),
        };
        progress.send_modify(|it| {
            it.stored.clone_from(&position);
            it.holes = archive.holes().len() as u64;
            it.reached = archive.stretches().last().map(|newest| archive.end_of(newest));
        });
        let (settled, compared) = (now.moment, now.moment);
        let (spool, passing_over) = (None, false);
        Ok(Archiver {
            order,
            progress,
            place,
            number,
            position,
            spool,
            own,
            passing_over,
            settled,
            compared,
        })
    }

    async fn run(&mut self, token: &CancellationToken) -> Result<(), BackupError> {
        let mut pause = FIRST_PAUSE;
        while !token.is_cancelled() {
            let found = tokio::select! {
                () = token.cancelled() => break,
                found = finding::find(self.order, self.position.as_ref(), self.own) => found,
            };
            match found? {
                Found::Reading { reading, from } => {
                    self.go_on(&from, token).await?;
                    pause = FIRST_PAUSE;
                    match self.read(*reading, token).await? {
                        Ended::Stopped => break,
                        Ended::Left(why) => self.trouble(why),
                    }
                }
                Found::Forked { server, from, lost } => {
                    tracing::error!(
                        %server, %lost,
                        "a failover lost transactions that are archived; going on without them"
                    );
                    self.progress.send_modify(|it| it.forks += 1);
                    let head =
                        Head { begins: Beginning::Fork, from, lost: Some(lost), missing: None };
                    self.turn(head, token).await?;
                }
                Found::Gap { server, from, missing } => {
                    tracing::error!(
                        %server, %missing,
                        "no server has what comes next any more: a gap that no recovery can cross"
                    );
                    self.progress.send_modify(|it| {
                        it.gaps += 1;
                        it.holes += 1;
                    });
                    let head =
                        Head { begins: Beginning::Gap, from, lost: None, missing: Some(missing) };
                    self.turn(head, token).await?;
                }
                Found::Nobody(why) => {
                    self.trouble(why);
                    if !self.wait(pause, token).await {
                        break;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        self.store(token).await?;
        self.mark(true).await;
        Ok(())
    }

    fn trouble(&self, why: String) {
        tracing::warn!(why, "looking for another source");
        let at = self.order.clock.now().wall;
        self.progress.send_modify(|it| {
            it.source = None;
            it.hindered(why, at);
        });
    }

    /// Waits; false when somebody asked to stop.
    async fn wait(&self, pause: Duration, token: &CancellationToken) -> bool {
        tokio::select! {
            () = token.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Prepares to go on from there: where it left off, or where the archive begins.
    async fn go_on(&mut self, from: &Gtids, token: &CancellationToken) -> Result<(), BackupError> {
        let begins = match self.position {
            Some(_) => Beginning::Continues,
            None => Beginning::Start,
        };
        if self.spool.is_none() {
            let head = Head { begins, from: from.clone(), lost: None, missing: None };
            self.turn(head, token).await?;
        }
        Ok(())
    }

    /// Stores what was read so far, and goes on as that says.
    async fn turn(&mut self, head: Head, token: &CancellationToken) -> Result<(), BackupError> {
        self.store(token).await?;
        self.position = Some(head.from.clone());
        let failed = open_segment();
        match &mut self.spool {
            Some(spool) => {
                let head = head.after(&spool.head);
                spool.clear(head).await.map_err(failed)
            }
            None => {
                let spool = Spool::create(&std::env::temp_dir(), self.own, head).map_err(failed)?;
                self.spool = Some(spool);
                Ok(())
            }
        }
    }

    /// Reads until the source is gone, or not fit any more, or somebody asks to stop.
    async fn read(
        &mut self,
        mut reading: Reading,
        token: &CancellationToken,
    ) -> Result<Ended, BackupError> {
        let origin = Origin {
            server: reading.server.clone(),
            flavor: reading.flavor,
            version: reading.version,
        };
        self.from(&origin, token).await?;
        self.progress.send_modify(|it| {
            it.source = Some(origin.server.clone());
            it.goes_on();
        });
        tracing::info!(source = %origin.server, "reading its binary log");
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked = self.order.clock.now().moment;
        let mut doubts = 0;
        let ended = loop {
            tokio::select! {
                biased;
                () = token.cancelled() => break Ended::Stopped,
                _ = tick.tick() => {
                    self.settle(token).await?;
                    let now = self.order.clock.now().moment;
                    if now.since(looked) < LOOK {
                        continue;
                    }
                    looked = now;
                    match finding::is_fit(self.order, &origin.server).await {
                        Ok(()) => doubts = 0,
                        Err(why) if doubts > 0 => break Ended::Left(why),
                        Err(_) => doubts += 1,
                    }
                }
                next = reading.next() => match next {
                    Ok((event, seen)) => self.take(&event, seen, &origin, token).await?,
                    Err(Refusal::Strange(strange)) => {
                        return Err(BackupError::server(&origin.server, strange));
                    }
                    Err(gone) => break Ended::Left(format!("{}: {gone}", origin.server)),
                },
            }
        };
        if let Some(spool) = &mut self.spool {
            spool.forget_part().await.map_err(open_segment())?;
        }
        Ok(ended)
    }

    /// Each segment is from one server.
    async fn from(
        &mut self,
        origin: &Origin,
        token: &CancellationToken,
    ) -> Result<(), BackupError> {
        let other = |spool: &Spool| spool.origin.as_ref().is_some_and(|before| before != origin);
        if self.spool.as_ref().is_some_and(other) {
            self.store(token).await?;
        }
        Ok(())
    }

    /// Takes in what was read.
    async fn take(
        &mut self,
        event: &mysql_async::binlog::events::Event,
        seen: Seen,
        origin: &Origin,
        token: &CancellationToken,
    ) -> Result<(), BackupError> {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        let failed = open_segment();
        let ended = match seen {
            Seen::Nothing => return Ok(()),
            Seen::Break => spool.forget_part().await.map(|()| None),
            Seen::Description => spool.describe(event).await.map(|()| None),
            Seen::Begins(began)
                if self.position.as_ref().is_some_and(|it| it.contains(&began.gtid)) =>
            {
                self.passing_over = true;
                Ok(spool.end())
            }
            Seen::Within { .. } if self.passing_over => return Ok(()),
            Seen::Begins(began) => {
                self.passing_over = false;
                let before = spool.end();
                if before.is_none() && spool.since.is_none() {
                    spool.since = Some(self.order.clock.now().moment);
                    spool.origin = Some(origin.clone());
                }
                spool.begin(event, began).await.map(|()| before)
            }
            Seen::Within { ends } => {
                spool.append(event).await.map(|()| if ends { spool.end() } else { None })
            }
        };
        if let Some(gtid) = ended.map_err(failed)? {
            self.advance(&gtid);
        }
        let full = |spool: &Spool| {
            !spool.is_within() && spool.bytes() >= self.order.backups.binlogs.segment_size
        };
        if self.spool.as_ref().is_some_and(full) {
            self.store(token).await?;
        }
        Ok(())
    }

    fn advance(&mut self, gtid: &Gtids) {
        if let Some(position) = &mut self.position {
            position.add(gtid);
        }
        let Some(spool) = &self.spool else { return };
        let (waiting, last) = (spool.transactions, spool.last);
        self.progress.send_modify(|it| {
            it.waiting = waiting;
            it.last_commit = Some(last);
            it.complete = false;
        });
    }

    /// Stores a segment that is old enough; where there is nothing to store, looks whether that is all.
    async fn settle(&mut self, token: &CancellationToken) -> Result<(), BackupError> {
        let (now, age) = (self.order.clock.now().moment, self.order.backups.binlogs.segment_age);
        let Some(spool) = &self.spool else { return Ok(()) };
        if spool.is_within() {
            return Ok(());
        }
        if spool.transactions > 0 {
            let old = spool.since.is_some_and(|since| now.since(since) >= age);
            return if old { self.store(token).await } else { Ok(()) };
        }
        let due = now.since(self.settled) >= age;
        if due || now.since(self.compared) >= LOOK {
            self.mark(due).await;
        }
        Ok(())
    }

    /// Looks whether everything is archived, and writes that down where it is due.
    async fn mark(&mut self, due: bool) {
        let now = self.order.clock.now();
        self.compared = now.moment;
        if due {
            self.settled = now.moment;
        }
        let Some(position) = self.position.clone().filter(|_| self.number > 1) else { return };
        let all = finding::is_all(self.order, &position).await;
        self.progress.send_modify(|it| {
            it.complete = all;
            if all {
                it.reaches(now.wall);
            }
        });
        if all
            && due
            && let Err(error) = self.place.mark(now.wall, position).await
        {
            tracing::warn!(%error, "it could not be written down that all is archived");
        }
    }

    /// Stores what was read whole, again and again until it is stored or somebody asks to stop.
    async fn store(&mut self, token: &CancellationToken) -> Result<(), BackupError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(spool) = self.spool.as_mut().filter(|spool| spool.transactions > 0) else {
                return Ok(());
            };
            let stored = tokio::select! {
                stored = self.place.store(self.number, spool) => stored,
                () = patience(token) => Err(BackupError::Unknown(format!(
                    "{} did not take the last segment; what it has is still in the servers' logs",
                    self.place.target.name
                ))),
            };
            match stored {
                Ok(stored) => {
                    let failed = open_segment();
                    let from = stored.to.clone();
                    let head =
                        Head { begins: Beginning::Continues, from, lost: None, missing: None };
                    spool.clear(head).await.map_err(failed)?;
                    self.number += 1;
                    self.settled = self.order.clock.now().moment;
                    self.progress.send_modify(|it| {
                        it.segments += 1;
                        it.transactions += stored.transactions;
                        it.bytes += stored.bytes;
                        it.waiting = 0;
                        it.stored = Some(stored.to);
                        it.reaches(stored.name.last);
                        it.goes_on();
                    });
                    return Ok(());
                }
                Err(error @ BackupError::Occupied { .. }) => return Err(error),
                Err(error) if token.is_cancelled() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a segment could not be stored; trying again");
                    let at = self.order.clock.now().wall;
                    self.progress.send_modify(|it| it.hindered(error.to_string(), at));
                }
            }
            self.wait(pause, token).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Ends a while after somebody asked to stop: a target that fails for hours must not keep them.
async fn patience(token: &CancellationToken) {
    token.cancelled().await;
    tokio::time::sleep(LAST_ATTEMPT).await;
}

/// What fails when the segment that is being filled cannot be written.
fn open_segment() -> impl FnOnce(std::io::Error) -> BackupError + Copy {
    |error| {
        let directory = std::env::temp_dir();
        BackupError::io(format!("the segment being filled, in {} (TMPDIR)", directory.display()))(
            error,
        )
    }
}
