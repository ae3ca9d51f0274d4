//! The shapes of the API's JSON: what it answers and what it takes. `docs/api.md` describes them.

use crate::decision::topology::ClusterName;
pub use crate::decision::view::{
    ArchiveView, CandidateView, ChoreView, ClusterView, EndedView, EventView, ExplanationView,
    FindingView, MaintenanceView, ProcedureView, ProgressView, ProofView, Proven, ProxyView,
    RunView, ScheduleView, ServerView, StageView, StatusView, StepView, WatcherView, Worthless,
};
use serde::{Deserialize, Serialize};

/// Any answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs; `docs/api.md` lists all.
    pub code: String,
    /// For people: what was seen and what would be right.
    pub text: String,
}

/// A procedure was opened; follow it at `/v1/clusters/{cluster}/procedures/{procedure}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedBody {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its number.
    pub procedure: u64,
}

/// Something was done at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneBody {
    /// What was done, as a sentence.
    pub text: String,
}

/// Body of `POST /v1/clusters/{cluster}/adopt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptBody {
    /// The server that is the primary.
    pub primary: String,
}

/// Body of `POST /v1/clusters/{cluster}/switchover`; every field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverBody {
    /// Where to; the best candidate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /v1/clusters/{cluster}/failover`; every field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverBody {
    /// Where to; the best candidate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Go on although acknowledged transactions may be lost.
    #[serde(default)]
    pub accept_loss: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /v1/clusters/{cluster}/rejoin`; every field but `server` may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinBody {
    /// Which server.
    pub server: String,
    /// Replace its data, even where that is not needed.
    #[serde(default)]
    pub rebuild: bool,
    /// Whose data it gets; the best donor when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Go on although its own transactions cannot be written down.
    #[serde(default)]
    pub accept_loss: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /v1/clusters/{cluster}/repair`; every field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairBody {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /v1/clusters/{cluster}/maintenance`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceBody {
    /// Which server; the whole cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// For how long, such as `30m`.
    #[serde(rename = "for")]
    pub lasts: String,
    /// Why.
    pub reason: String,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The server's data goes, and who asks sees to other data.
    #[serde(default)]
    pub new_data: bool,
}

/// Body of `POST /v1/clusters/{cluster}/maintenance/end`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndMaintenanceBody {
    /// Which server; the whole cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The server has other data, all that the primary held when that was there.
    #[serde(default)]
    pub new_data: bool,
}

/// Answer of `GET /v1/clusters/{cluster}/urgent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrgentBody {
    /// Whether something goes before the cluster's backups.
    pub urgent: bool,
}

/// Answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyBody {
    /// Whether this watcher has caught up and knows a leader.
    pub ready: bool,
    /// Who leads.
    pub leader: Option<String>,
    /// Raft's term.
    pub term: u64,
}
