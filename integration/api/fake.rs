//! A watcher that gives prepared answers behind a real API.

use regent::api::types::*;
use regent::clock::WallTime;
use regent::decision::backup::names::BackupId;
use regent::decision::topology::{Endpoint, Epoch, WatcherName};
use regent::decision::view::{Refusal, RefusalCode, Request, Response};
use regent::runtime::handle::{Desk, Handle, NodeHealth};
use regent::runtime::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running API with a made-up watcher behind it.
pub struct Fake {
    pub base: String,
    pub metrics: Metrics,
    /// Everything that was asked, in order.
    pub asked: Arc<Mutex<Vec<Request>>>,
    /// What it tells of itself.
    pub health: watch::Sender<NodeHealth>,
    _stop: DropGuard,
}

/// What the made-up watcher answers.
pub type Answers = fn(&Request) -> Option<Response>;

pub struct Place {
    listener: TcpListener,
    pub endpoint: Endpoint,
}

pub async fn place() -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    Place { listener, endpoint }
}

/// One watcher that leads.
pub async fn leading() -> Fake {
    start("paris", Some("paris"), place().await, BTreeMap::new(), canned).await
}

pub async fn start(
    name: &str,
    leader: Option<&str>,
    place: Place,
    apis: BTreeMap<WatcherName, Endpoint>,
    answers: Answers,
) -> Fake {
    let (handle, desk) = Handle::open(name.into(), apis);
    desk.health.send_replace(NodeHealth {
        ready: true,
        leader: leader.map(WatcherName::from),
        term: 7,
        ..NodeHealth::default()
    });
    let health = desk.health.clone();
    let asked = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(answer_all(desk, Arc::clone(&asked), answers));
    let metrics = Metrics::new();
    let stop = CancellationToken::new();
    let base = format!("http://{}", place.endpoint);
    let serving = regent::api::serve_on(handle, metrics.clone(), place.listener, stop.clone());
    tokio::spawn(async move { serving.await.unwrap() });
    Fake { base, metrics, asked, health, _stop: stop.drop_guard() }
}

/// An unanswered request stays open, as with a watcher that is stuck.
async fn answer_all(mut desk: Desk, log: Arc<Mutex<Vec<Request>>>, answers: Answers) {
    let mut unanswered = Vec::new();
    while let Some(asked) = desk.asked.recv().await {
        log.lock().unwrap().push(asked.request.clone());
        match answers(&asked.request) {
            Some(response) => drop(asked.answer.send(response)),
            None => unanswered.push(asked.answer),
        }
    }
}

pub fn refused(code: RefusalCode, text: &str, leader: Option<&str>) -> Response {
    let leader = leader.map(WatcherName::from);
    Response::Refused(Refusal { code, text: text.to_owned(), leader })
}

/// The watcher paris leads and knows the cluster shop.
pub fn canned(request: &Request) -> Option<Response> {
    let known = |name: &str| name == "shop";
    Some(match request {
        Request::Status { .. } => Response::Status(status_view()),
        Request::Explain { cluster, .. }
        | Request::Procedure { cluster, .. }
        | Request::Adopt { cluster, .. }
        | Request::Switchover { cluster, .. }
        | Request::Failover { cluster, .. }
        | Request::Repair { cluster, .. }
        | Request::Maintain { cluster, .. }
        | Request::EndMaintenance { cluster, .. }
        | Request::Rejoin { cluster, .. }
            if !known(cluster.as_str()) =>
        {
            refused(RefusalCode::Unknown, "there is no such cluster", None)
        }
        Request::Explain { .. } => Response::Explanation(Box::new(explanation())),
        Request::Switchover { dry_run: true, .. }
        | Request::Failover { dry_run: true, .. }
        | Request::Repair { dry_run: true, .. }
        | Request::Rejoin { dry_run: true, .. } => Response::Explanation(Box::new(explanation())),
        Request::Events { after, .. } => {
            Response::Events(events().into_iter().filter(|event| event.seq > *after).collect())
        }
        Request::Procedure { id, .. } => Response::Procedure(procedure(id.unwrap_or(3))),
        Request::Adopt { primary, .. } => {
            Response::Done { text: format!("shop is adopted with primary {primary}") }
        }
        Request::Switchover { to: Some(to), .. } if to.as_str() == "db1" => {
            refused(RefusalCode::Forbidden, "db1 is the primary already", None)
        }
        Request::Switchover { cluster, .. } => {
            Response::Opened { cluster: cluster.clone(), procedure: 3 }
        }
        Request::Repair { cluster, .. } => {
            Response::Opened { cluster: cluster.clone(), procedure: 3 }
        }
        Request::Maintain { server, .. } | Request::EndMaintenance { server, .. } => {
            Response::Done { text: format!("done for {server:?}") }
        }
        Request::Failover { cluster, .. } => {
            Response::Opened { cluster: cluster.clone(), procedure: 4 }
        }
        Request::Rejoin { cluster, .. } => {
            Response::Opened { cluster: cluster.clone(), procedure: 3 }
        }
    })
}

pub fn status_view() -> StatusView {
    let watcher =
        |id: &str, reachable| WatcherView { id: id.into(), data_center: id.into(), reachable };
    StatusView {
        leader: Some("paris".into()),
        term: 7,
        answered_by: "paris".into(),
        watchers: vec![watcher("paris", true), watcher("london", true), watcher("cloud", false)],
        proxies: vec![ProxyView { id: "proxy-1".into(), sessions: 12 }],
        clusters: vec![cluster()],
    }
}

fn cluster() -> ClusterView {
    ClusterView {
        name: "shop".into(),
        state: "degraded".to_owned(),
        reason: "db3 is too far behind to serve reads".to_owned(),
        primary: Some("db1".into()),
        epoch: Epoch(4),
        durability: "lossless".to_owned(),
        acks: 1,
        servers: vec![
            server("db1", "primary", "healthy", None),
            server("db2", "replica", "healthy", Some(0.0)),
            server("db3", "replica", "replica_lagging", Some(12.25)),
        ],
        findings: vec![finding()],
        procedure: None,
        maintenance: Vec::new(),
        waiting: String::new(),
        backups: Vec::new(),
        proofs: vec![proof()],
        chores: vec![chore()],
        archive: Some(archive()),
    }
}

fn proof() -> ProofView {
    let backup = |name: &str| BackupId::parse(name).unwrap();
    let newest = Proven {
        backup: backup("20261120T013001000Z-db3"),
        begun: WallTime(1_794_827_401_000),
        at: WallTime(1_794_829_000_000),
    };
    let failed = Worthless {
        backup: backup("20261119T013001000Z-db3"),
        begun: WallTime(1_794_741_001_000),
        why: "part 2 is damaged".to_owned(),
    };
    ProofView {
        target: "s3".to_owned(),
        newest: Some(newest),
        age_seconds: Some(73_200),
        backups: Some(9),
        proven: Some(4),
        failed: vec![failed],
        alert: String::new(),
    }
}

fn archive() -> ArchiveView {
    ArchiveView {
        target: "s3".to_owned(),
        source: Some("db3".into()),
        reached: Some(WallTime(1_794_913_801_000)),
        lag_seconds: Some(4),
        segments: 12,
        transactions: 4_711,
        bytes: 73_400_320,
        gaps: 1,
        errors: 2,
        ..ArchiveView::default()
    }
}

fn chore() -> ChoreView {
    ChoreView {
        chore: "prove".to_owned(),
        watcher: Some("london".into()),
        working: true,
        doing: "restores 20261121T013001000Z-db3 of target s3 for a proof".to_owned(),
        since: Some(WallTime(1_794_913_801_000)),
        bytes: 73_400_320,
        total: Some(104_857_600),
        trouble: String::new(),
        failed: "paris: there is no mysqld on this machine".to_owned(),
    }
}

fn finding() -> FindingView {
    FindingView {
        kind: "replica_lagging".to_owned(),
        server: Some("db3".into()),
        text: "db3 is 12 s behind".to_owned(),
        evidence: vec!["paris saw 12.2 s on db3".to_owned()],
    }
}

fn server(name: &str, role: &str, health: &str, lag: Option<f64>) -> ServerView {
    let primary = role == "primary";
    ServerView {
        name: name.into(),
        address: format!("10.1.0.1{}:3306", &name[2..]),
        role: role.to_owned(),
        health: health.to_owned(),
        lag_seconds: if primary { Some(0.0) } else { lag },
        data_center: "paris".into(),
        writable: Some(primary),
        follows: (!primary).then(|| "db1".to_owned()),
        version: Some("MySQL 9.7.4".to_owned()),
        executed: Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23".to_owned()),
        behind: Some(if name == "db3" { 48 } else { 0 }),
        acknowledges: Some(name == "db2"),
    }
}

fn events() -> Vec<EventView> {
    let event = |seq, kind: &str, text: &str| EventView {
        seq,
        at: WallTime(1_795_000_000_000 + seq * 250),
        cluster: Some("shop".into()),
        kind: kind.to_owned(),
        text: text.to_owned(),
    };
    vec![
        event(1, "finding_began", "db1 is dead"),
        event(2, "route_opened", "db2 takes writes under epoch 4"),
    ]
}

fn explanation() -> ExplanationView {
    let candidate = |name: &str, eligible, reason: &str| CandidateView {
        server: name.into(),
        eligible,
        reasons: vec![reason.to_owned()],
    };
    ExplanationView {
        cluster: "shop".into(),
        findings: vec![finding()],
        response: "alert".to_owned(),
        rule: Some("replica-lagging".to_owned()),
        reasons: vec!["a lagging replica does not stop writes".to_owned()],
        candidates: vec![
            candidate("db2", true, "holds everything db1 has"),
            candidate("db3", false, "48 transactions behind"),
        ],
        plan: vec![stage("isolate", "waiting", &["db1 takes no writes"])],
        loss: String::new(),
        durability: "each commit waits for db2".to_owned(),
        maintenance: Vec::new(),
        backups: Vec::new(),
    }
}

fn stage(name: &str, state: &str, steps: &[&str]) -> StageView {
    let step = |text: &&str| StepView {
        text: (*text).to_owned(),
        state: state.to_owned(),
        attempts: 1,
        answer: String::new(),
        took_ms: (state == "done").then_some(12),
        progress: None,
    };
    StageView {
        name: name.to_owned(),
        state: state.to_owned(),
        steps: steps.iter().map(step).collect(),
    }
}

/// Number 3 went well, number 4 was abandoned.
fn procedure(id: u64) -> ProcedureView {
    let well = id != 4;
    ProcedureView {
        id,
        kind: if well { "switchover" } else { "failover" }.to_owned(),
        cause: "asked for by an operator".to_owned(),
        epoch: Epoch(5),
        from: Some("db1".into()),
        to: Some("db2".into()),
        opened: WallTime(1_795_000_000_000),
        closed: Some(WallTime(1_795_000_000_140)),
        state: if well { "done" } else { "abandoned" }.to_owned(),
        text: if well { "db2 is the primary" } else { "no candidate is left" }.to_owned(),
        loss: String::new(),
        stages: vec![
            stage("isolate", "done", &["db1 takes no writes"]),
            stage("promote", if well { "done" } else { "failed" }, &["db2 takes writes"]),
        ],
    }
}
