//! What people and programs are shown: the answers to requests, and the requests themselves.
//!
//! The JSON shape of these types is a contract (`docs/api.md`): fields are added, never renamed.

pub use super::backup::archive::account::ArchiveView;
pub use super::backup::chore::ChoreView;
pub use super::backup::proofs::{ProofView, Proven, Worthless};
pub use super::backup::shown::{EndedView, RunView, ScheduleView};
use super::plan::Progress;
use super::topology::{ClusterName, DataCenter, Epoch, ProxyName, ServerName, WatcherName};
use crate::clock::WallTime;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What somebody asks of the watchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// All clusters, or one.
    Status {
        /// Only this one.
        cluster: Option<ClusterName>,
    },
    /// Findings, what the rules make of them, and the candidates, for one cluster.
    Explain {
        /// Which.
        cluster: ClusterName,
        /// As if this server were dead.
        without: Option<ServerName>,
    },
    /// What happened, oldest first.
    Events {
        /// Only events numbered above this.
        after: u64,
        /// At most so many (capped at 1,000).
        limit: usize,
        /// Only of this cluster.
        cluster: Option<ClusterName>,
    },
    /// One procedure with its journal.
    Procedure {
        /// Its cluster.
        cluster: ClusterName,
        /// Its number; the newest when absent.
        id: Option<u64>,
    },
    /// Take the cluster as it runs, with this primary.
    Adopt {
        /// Which.
        cluster: ClusterName,
        /// Its primary.
        primary: ServerName,
    },
    /// Move the primary's role while it is healthy.
    Switchover {
        /// Which cluster.
        cluster: ClusterName,
        /// Where to; the best candidate when absent.
        to: Option<ServerName>,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Replace the primary now, dead or not.
    Failover {
        /// Which cluster.
        cluster: ClusterName,
        /// Where to; the best candidate when absent.
        to: Option<ServerName>,
        /// Go on although acknowledged transactions may be lost.
        accept_loss: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Mend now what can be mended, whatever the rules wait for.
    Repair {
        /// Which cluster.
        cluster: ClusterName,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Leave a server, or the whole cluster, alone for a while.
    Maintain {
        /// Which cluster.
        cluster: ClusterName,
        /// Which server; the whole cluster when absent.
        server: Option<ServerName>,
        /// For how long.
        lasts: Duration,
        /// Why.
        reason: String,
        /// Who asks; empty when not known.
        by: String,
        /// Its data goes, and a person sees to other data.
        new_data: bool,
    },
    /// End that.
    EndMaintenance {
        /// Which cluster.
        cluster: ClusterName,
        /// Which server; the whole cluster when absent.
        server: Option<ServerName>,
        /// Who asks; empty when not known.
        by: String,
        /// It has other data, all that the primary held when that was there.
        new_data: bool,
    },
    /// Let a server follow again, whatever became of its history.
    Rejoin {
        /// Its cluster.
        cluster: ClusterName,
        /// Which.
        server: ServerName,
        /// Replace its data, even where that is not needed.
        rebuild: bool,
        /// Whose data it gets; the best donor when absent.
        donor: Option<ServerName>,
        /// Go on although its own transactions cannot be written down.
        accept_loss: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
}

impl Request {
    /// Whether it changes anything.
    pub fn changes_state(&self) -> bool {
        match self {
            Request::Adopt { .. } | Request::Maintain { .. } | Request::EndMaintenance { .. } => {
                true
            }
            Request::Switchover { dry_run, .. }
            | Request::Failover { dry_run, .. }
            | Request::Repair { dry_run, .. }
            | Request::Rejoin { dry_run, .. } => !dry_run,
            Request::Status { .. }
            | Request::Explain { .. }
            | Request::Events { .. }
            | Request::Procedure { .. } => false,
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To `Status`.
    Status(StatusView),
    /// To `Explain`, and to any request with `dry_run`.
    Explanation(Box<ExplanationView>),
    /// To `Events`.
    Events(Vec<EventView>),
    /// To `Procedure`.
    Procedure(ProcedureView),
    /// A procedure was opened; follow it by its number.
    Opened {
        /// Its cluster.
        cluster: ClusterName,
        /// Its number.
        procedure: u64,
    },
    /// Done at once.
    Done {
        /// What was done, as a sentence.
        text: String,
    },
    /// Not done.
    Refused(Refusal),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what was seen and what would be right.
    pub text: String,
    /// Who leads, when this watcher does not; programs ask there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<WatcherName>,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// No such cluster, server or procedure.
    Unknown,
    /// This watcher does not lead.
    NotLeader,
    /// Nobody leads, or the leader is not ready yet.
    NoLeader,
    /// The state of the cluster forbids it.
    Forbidden,
    /// Too much is being asked at once.
    Busy,
    /// Leadership ended before it was decided; it may still be carried out.
    Undecided,
}

/// All clusters at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The leading watcher.
    pub leader: Option<WatcherName>,
    /// Raft's term.
    pub term: u64,
    /// The watcher that answered.
    pub answered_by: WatcherName,
    /// All declared watchers.
    pub watchers: Vec<WatcherView>,
    /// Proxies that hold a lease.
    pub proxies: Vec<ProxyView>,
    /// The clusters asked for.
    pub clusters: Vec<ClusterView>,
}

/// One watcher as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherView {
    /// Its id.
    pub id: WatcherName,
    /// Where it stands.
    pub data_center: DataCenter,
    /// Whether the leader heard from it lately.
    pub reachable: bool,
}

/// One proxy as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyView {
    /// Its id.
    pub id: ProxyName,
    /// Client sessions it carries, over all clusters.
    pub sessions: u64,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Its name.
    pub name: ClusterName,
    /// One word: `healthy`, `degraded`, `failing_over`, `switching_over`, `no_primary`,
    /// `not_adopted`, `stuck`.
    pub state: String,
    /// One sentence for people when the state is not `healthy`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The primary of the current epoch.
    pub primary: Option<ServerName>,
    /// The current epoch.
    pub epoch: Epoch,
    /// `lossless` or `best_effort`.
    pub durability: String,
    /// How many acknowledgements a commit waits for.
    pub acks: u32,
    /// Its servers, in declared order.
    pub servers: Vec<ServerView>,
    /// What is wrong, most important first.
    pub findings: Vec<FindingView>,
    /// The open procedure.
    pub procedure: Option<ProcedureView>,
    /// What is in maintenance; the whole cluster's notice names no server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<MaintenanceView>,
    /// Why nothing is done right now about what is wrong, as a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting: String,
    /// Its schedules of backups, in declared order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<ScheduleView>,
    /// What proves its backups, a target each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<ProofView>,
    /// The standing work for its backups that one watcher at a time does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chores: Vec<ChoreView>,
    /// The archive of its binary log; absent where the watchers keep none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveView>,
}

/// A server or a whole cluster that is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceView {
    /// The server; absent when it is the whole cluster.
    pub server: Option<ServerName>,
    /// When it began.
    pub since: WallTime,
    /// When it is over.
    pub until: WallTime,
    /// Why.
    pub reason: String,
    /// Who asked; absent when not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerView {
    /// Its name.
    pub name: ServerName,
    /// Its address, `host:port`.
    pub address: String,
    /// `primary`, `replica` or `unassigned`.
    pub role: String,
    /// `healthy`, `unknown`, `maintenance`, or the kind of its worst finding.
    pub health: String,
    /// Seconds behind; absent when unknown, zero on the primary.
    pub lag_seconds: Option<f64>,
    /// Where it stands.
    pub data_center: DataCenter,
    /// Whether it takes writes; absent when unknown.
    pub writable: Option<bool>,
    /// Whom it follows: a server's name, or an address that is not declared.
    pub follows: Option<String>,
    /// Product and version.
    pub version: Option<String>,
    /// Transactions it has committed.
    pub executed: Option<String>,
    /// Transactions the primary has and it does not.
    pub behind: Option<u64>,
    /// Whether it acknowledges commits.
    pub acknowledges: Option<bool>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingView {
    /// Its kind, such as `primary_dead`.
    pub kind: String,
    /// The server it is about.
    pub server: Option<ServerName>,
    /// As a sentence.
    pub text: String,
    /// Who said what, one line each.
    pub evidence: Vec<String>,
}

/// One procedure with its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcedureView {
    /// Its number, unique in its cluster.
    pub id: u64,
    /// `failover`, `switchover`, `repair` or `rejoin`.
    pub kind: String,
    /// Why it was opened.
    pub cause: String,
    /// The epoch it acts under.
    pub epoch: Epoch,
    /// The server that is being replaced, if any.
    pub from: Option<ServerName>,
    /// The server that takes over, once chosen.
    pub to: Option<ServerName>,
    /// When it was opened.
    pub opened: WallTime,
    /// When it was closed.
    pub closed: Option<WallTime>,
    /// `running`, `done`, `abandoned`, `yielded` or `stuck`.
    pub state: String,
    /// How it ended, as a sentence.
    pub text: String,
    /// What may be lost by it, as a sentence; absent when it is proven that nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub loss: String,
    /// Its stages so far.
    pub stages: Vec<StageView>,
}

/// One stage of a procedure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageView {
    /// Its name.
    pub name: String,
    /// `waiting`, `running`, `done` or `failed`.
    pub state: String,
    /// Its steps as sentences with their states.
    pub steps: Vec<StepView>,
}

/// One step of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// What it brings about.
    pub text: String,
    /// `waiting`, `running`, `done`, `failed` or `skipped`.
    pub state: String,
    /// Attempts made.
    pub attempts: u32,
    /// What its last attempt answered, when that is worth reading.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// Milliseconds from its beginning to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// How far it is, while it runs and where that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
}

/// How far a long step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// What it does right now.
    pub text: String,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Of a hundred, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
}

impl From<&Progress> for ProgressView {
    fn from(progress: &Progress) -> ProgressView {
        let Progress { text, done, total } = progress.clone();
        let percent = total.filter(|total| *total > 0).map(|total| {
            // An estimate may fall short; only its end is the end.
            (u128::from(done) * 100 / u128::from(total)).min(99) as u64
        });
        ProgressView { text, bytes: done, total, percent }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Grows by one with each event.
    pub seq: u64,
    /// When, by the leader's wall clock.
    pub at: WallTime,
    /// Where; absent for events of the watchers themselves.
    pub cluster: Option<ClusterName>,
    /// Its kind, such as `finding_began` or `route_opened`.
    pub kind: String,
    /// As a sentence.
    pub text: String,
}

/// What would happen now, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// The cluster.
    pub cluster: ClusterName,
    /// Findings, most important first.
    pub findings: Vec<FindingView>,
    /// The chosen response: `nothing`, `alert`, `repair`, `rejoin`, `fail_over`, `switch_over`.
    pub response: String,
    /// The rule that chose it.
    pub rule: Option<String>,
    /// Why, or why not, or what it waits for.
    pub reasons: Vec<String>,
    /// All servers that were considered, best first.
    pub candidates: Vec<CandidateView>,
    /// What would be done, stage by stage.
    pub plan: Vec<StageView>,
    /// What may be lost, as a sentence; empty when nothing may.
    pub loss: String,
    /// The price of the durability in force, as a sentence.
    pub durability: String,
    /// What is in maintenance; the whole cluster's notice names no server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<MaintenanceView>,
    /// Its schedules of backups, in declared order, with the servers that each could read from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<ScheduleView>,
}

/// One server's chance of being promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateView {
    /// Its name.
    pub server: ServerName,
    /// Whether it may be promoted at all.
    pub eligible: bool,
    /// What speaks for or against it, most important first.
    pub reasons: Vec<String>,
}
