//! Carrying out archived transactions on a server that was restored from a backup, up to a moment.
//!
//! The database's own programs turn them into statements and carry these out; which of them get there is
//! decided here. Each keeps its GTID, so that what was broken off goes on where it stopped.

use super::feeding::Feeding;
pub use super::onto::{Copied, Onto};
use super::reading::Opened;
use crate::decision::backup::archive::recovery::Plan;
use crate::decision::backup::archive::walk::Walk;
use crate::decision::gtid::Gtids;
use crate::decision::report::{Status, Writable};
use crate::decision::topology::Flavor;
use crate::runtime::backup::packing::Identities;
use crate::runtime::backup::restoring::ask;
use crate::runtime::backup::target::Target;
use crate::runtime::backup::{BackupError, Progress};
use mysql_async::prelude::Queryable;
use serde::Serialize;
use tokio::sync::watch;

/// The largest packet there is: a statement may hold that much.
const LARGEST_PACKET: u64 = 1 << 30;

/// What was carried out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// How many transactions.
    pub transactions: u64,
    /// Everything that the server has now.
    pub position: Gtids,
}

/// Where archived transactions are carried out.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// Where they are archived.
    pub target: &'a Target,
    /// Which of them, and from where on.
    pub plan: &'a Plan,
    /// Secret keys.
    pub identities: &'a Identities,
    /// The server.
    pub onto: Onto<'a>,
}

impl Replay<'_> {
    /// Whether the server holds the backup, perhaps some of what follows it, and nothing else.
    pub async fn fits(&self) -> Result<(), BackupError> {
        self.look().await.map(|_| ())
    }

    async fn look(&self) -> Result<Status, BackupError> {
        let server = self.onto.name();
        let status = self.onto.look().await?;
        let refused = |why: String| Err(BackupError::NotEmpty(format!("{server} {why}")));
        if status.flavor != self.plan.from.flavor() {
            return refused(format!("is {}, and the archive is not", status.flavor));
        }
        if !status.channels.is_empty() {
            return refused("replicates; transactions cannot be carried out there".to_owned());
        }
        let forgetful = status.flavor == Flavor::MariaDb && !status.settings.binlog;
        // The position of one that is there for this alone is set at the end.
        if forgetful && matches!(self.onto, Onto::Running(_)) {
            return refused("writes no binary log, and so forgets GTIDs; set log_bin".to_owned());
        }
        if !status.executed.contains(&self.plan.from) {
            let backup = &self.plan.backup;
            return refused(format!("does not hold backup {backup}; restore it first"));
        }
        let own = status.executed.minus(&self.most());
        if !own.is_empty() {
            let own: String = own.to_string().chars().take(100).collect();
            return refused(format!("has transactions that are not archived ({own})"));
        }
        Ok(status)
    }

    /// Everything that the server may have.
    fn most(&self) -> Gtids {
        let segments = self.plan.segments.iter();
        segments.fold(self.plan.from.clone(), |most, segment| most.union(&segment.gtids))
    }

    /// Carries out what comes after the server's position, up to the plan's end.
    pub async fn run(&self, progress: &watch::Sender<Progress>) -> Result<Replayed, BackupError> {
        let status = self.look().await?;
        let server = self.onto.name();
        let mut conn = self.onto.session().await?;
        let question = "SELECT @@GLOBAL.max_allowed_packet";
        let packet: Option<u64> = conn
            .query_first(question)
            .await
            .map_err(|error| BackupError::server(&server, error))?;
        let packet = packet.unwrap_or(LARGEST_PACKET);
        let closed = status.flavor == Flavor::MySql && status.writable == Writable::Closed;
        let large = format!("SET GLOBAL max_allowed_packet = {LARGEST_PACKET}");
        ask(&mut conn, &server, &large).await?;
        if closed {
            ask(&mut conn, &server, "SET GLOBAL super_read_only = OFF").await?;
        }
        let carried_out = self.carry_out(&status, progress).await;
        // The former session may have been idle for hours.
        let mut conn = self.onto.session().await?;
        if closed {
            ask(&mut conn, &server, "SET GLOBAL super_read_only = ON").await?;
        }
        ask(&mut conn, &server, &format!("SET GLOBAL max_allowed_packet = {packet}")).await?;
        let walk = carried_out?;
        self.place(&walk).await?;
        Ok(Replayed { transactions: walk.carried_out(), position: walk.position().clone() })
    }

    async fn carry_out(
        &self,
        status: &Status,
        progress: &watch::Sender<Progress>,
    ) -> Result<Walk, BackupError> {
        let reach = self.onto.reach(status.flavor);
        let mut walk = Walk::new(self.plan.clone(), status.executed.clone());
        let mut feeding = Feeding::new(reach);
        match self.feed(&mut walk, &mut feeding, progress).await {
            Ok(()) => {}
            // A program that fails stops reading, and says why.
            Err(BackupError::Io { what, error }) => {
                feeding.end().await?;
                return Err(BackupError::Io { what, error });
            }
            // The client is ended before its input is: it carries out no half of a transaction.
            Err(error) => return Err(error),
        }
        Ok(walk)
    }

    /// Feeds all transactions that are wanted, one after the other.
    async fn feed(
        &self,
        walk: &mut Walk,
        feeding: &mut Feeding<'_>,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), BackupError> {
        let all: u64 = self.plan.segments.iter().map(|segment| segment.plain_bytes).sum();
        progress.send_modify(|it| *it = Progress { total: Some(all), ..Progress::default() });
        for segment in &self.plan.segments {
            let mut opened = Opened::new(self.target, segment, self.identities).await?;
            if feeding.segment((&mut opened, segment.name.number), walk).await? {
                break;
            }
            progress.send_modify(|it| {
                it.plain += segment.plain_bytes;
                it.stored += segment.bytes;
            });
        }
        feeding.end().await
    }

    /// Lets the server go on from there, and looks whether it has all.
    async fn place(&self, walk: &Walk) -> Result<(), BackupError> {
        let server = self.onto.name();
        let position = walk.position();
        if position.flavor() == Flavor::MariaDb {
            let mut conn = self.onto.session().await?;
            let position = position.to_wait_text();
            let statement = format!("SET GLOBAL gtid_slave_pos = '{position}'");
            ask(&mut conn, &server, &statement).await?;
        }
        let status = self.onto.look().await?;
        if status.executed.contains(position) && position.contains(&status.executed) {
            return Ok(());
        }
        let what = format!("its position is {} and not {position}", status.executed);
        Err(BackupError::server(&server, what))
    }
}
