//! What each route does.
//!
//! The table [`ROUTES`] is the only list of routes: the router is made from it, and a test holds
//! `docs/api.md` against it.

use super::answer::Answer;
use super::forward::{Forwarder, HOP, Passed};
use super::guard::{self, MAX_BODY, MAX_LONG_POLLS, MAX_REQUESTS};
use super::input::{Fields, Query, checked_name};
use super::types::{ReadyBody, StatusView, UrgentBody};
use crate::clock::{Clock, Moment};
use crate::decision::topology::{ClusterName, ServerName};
use crate::decision::view::{Refusal, RefusalCode, Request, Response};
use crate::runtime::handle::{Handle, NodeHealth};
use crate::runtime::metrics::Metrics;
use axum::Router;
use axum::extract::{Path, Query as RawQuery, State, rejection::BytesRejection};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

/// How long a status is served again without asking anew.
const STATUS_KEPT: Duration = Duration::from_millis(100);
/// The longest long poll, in seconds.
const MAX_WAIT: u64 = 30;
/// Between two looks for new events during a long poll.
const WAIT_STEP: Duration = Duration::from_millis(250);
/// The most events in one answer.
const MAX_EVENTS: u64 = 1000;

/// Everything an endpoint needs; clones share it.
#[derive(Clone, Debug)]
pub struct Api {
    handle: Handle,
    metrics: Metrics,
    forwarder: Forwarder,
    clock: Clock,
    status: Arc<Mutex<Option<Kept>>>,
    long_polls: Arc<Semaphore>,
    pub(super) requests: Arc<Semaphore>,
}

/// A status and when it was learned.
#[derive(Clone, Debug)]
struct Kept {
    at: Moment,
    status: Result<Arc<StatusView>, Answer>,
}

/// Every route: its method, its path and what it is for.
pub const ROUTES: [(&str, &str, &str); 18] = [
    ("GET", "/v1/status", "all clusters at a glance, or one"),
    ("GET", "/v1/clusters/{cluster}", "one cluster"),
    ("GET", "/v1/clusters/{cluster}/topology", "one cluster: who follows whom"),
    ("GET", "/v1/clusters/{cluster}/explain", "what would happen now, and why"),
    ("GET", "/v1/clusters/{cluster}/procedures/{id}", "one procedure with its journal"),
    ("GET", "/v1/clusters/{cluster}/urgent", "whether something goes before its backups"),
    ("GET", "/v1/events", "what happened"),
    ("POST", "/v1/clusters/{cluster}/adopt", "take the cluster as it runs"),
    ("POST", "/v1/clusters/{cluster}/switchover", "move the primary's role"),
    ("POST", "/v1/clusters/{cluster}/failover", "replace the primary, dead or not"),
    ("POST", "/v1/clusters/{cluster}/repair", "mend now what can be mended"),
    ("POST", "/v1/clusters/{cluster}/maintenance", "leave it alone for a while"),
    ("POST", "/v1/clusters/{cluster}/maintenance/end", "look after it again"),
    ("POST", "/v1/clusters/{cluster}/rejoin", "let a server follow again"),
    ("GET", "/metrics", "counters and gauges for Prometheus"),
    ("GET", "/healthz", "whether the process lives"),
    ("GET", "/readyz", "whether it has caught up and knows a leader"),
    ("GET", "/", "what is here"),
];

/// The router over all routes.
pub fn router(handle: Handle, metrics: Metrics) -> Result<Router, reqwest::Error> {
    let api = Api {
        handle,
        metrics,
        forwarder: Forwarder::new()?,
        clock: Clock::start(),
        status: Arc::default(),
        long_polls: Arc::new(Semaphore::new(MAX_LONG_POLLS)),
        requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
    };
    let routes = ROUTES
        .iter()
        .fold(Router::new(), |router, (_, path, _)| router.route(path, method_for(path)));
    Ok(routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api))
}

fn method_for(path: &str) -> MethodRouter<Api> {
    match path {
        "/v1/status" => get(status),
        "/v1/clusters/{cluster}" | "/v1/clusters/{cluster}/topology" => get(cluster),
        "/v1/clusters/{cluster}/explain" => get(explain),
        "/v1/clusters/{cluster}/procedures/{id}" => get(procedure),
        "/v1/clusters/{cluster}/urgent" => get(urgent),
        "/v1/events" => get(events),
        "/v1/clusters/{cluster}/adopt" => post(adopt),
        "/v1/clusters/{cluster}/switchover" => post(switchover),
        "/v1/clusters/{cluster}/failover" => post(failover),
        "/v1/clusters/{cluster}/repair" => post(repair),
        "/v1/clusters/{cluster}/maintenance" => post(maintain),
        "/v1/clusters/{cluster}/maintenance/end" => post(end_maintenance),
        "/v1/clusters/{cluster}/rejoin" => post(rejoin),
        "/metrics" => get(metrics_text),
        "/healthz" => get(|| async { "alive\n" }),
        "/readyz" => get(ready),
        "/" => get(|| async { INDEX }),
        _ => get(no_such_route),
    }
}

const INDEX: &str = "Regent. Try /v1/status, /v1/events, /metrics or /readyz.\n";

type Pairs = RawQuery<Vec<(String, String)>>;
type Answered = Result<Answer, Answer>;
type Sent = Result<Bytes, BytesRejection>;

async fn status(State(api): State<Api>, pairs: Pairs, asked: Asked) -> Answered {
    let query = Query::read(pairs.0, &["cluster"])?;
    let all = api.status(&asked).await?;
    let Some(cluster) = query.name("cluster")? else {
        return Ok(Answer::ok(&*all));
    };
    let found = find(&all, cluster)?.clone();
    Ok(Answer::ok(&StatusView { clusters: vec![found], ..(*all).clone() }))
}

async fn cluster(
    State(api): State<Api>,
    Path(name): Path<String>,
    pairs: Pairs,
    asked: Asked,
) -> Answered {
    Query::read(pairs.0, &[])?;
    let name = checked_name("cluster", &name)?;
    let all = api.status(&asked).await?;
    Ok(Answer::ok(find(&all, name)?))
}

async fn explain(
    State(api): State<Api>,
    Path(name): Path<String>,
    pairs: Pairs,
    asked: Asked,
) -> Answered {
    let query = Query::read(pairs.0, &["without"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let without = query.name("without")?.map(ServerName::from);
    Ok(api.answer(Request::Explain { cluster, without }, asked).await)
}

async fn procedure(
    State(api): State<Api>,
    Path((name, id)): Path<(String, String)>,
    pairs: Pairs,
    asked: Asked,
) -> Answered {
    Query::read(pairs.0, &[])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let id = match id.as_str() {
        "latest" => None,
        number => Some(number.parse::<u64>().map_err(|_| {
            Answer::bad_input(format!("id is {number:?}; give a procedure's number or latest"))
        })?),
    };
    Ok(api.answer(Request::Procedure { cluster, id }, asked).await)
}

async fn events(State(api): State<Api>, pairs: Pairs, mut asked: Asked) -> Answered {
    let query = Query::read(pairs.0, &["after", "limit", "cluster", "wait"])?;
    let after = query.number("after", u64::MAX)?.unwrap_or(0);
    let limit = query.number("limit", MAX_EVENTS)?.unwrap_or(100);
    let limit = usize::try_from(limit).expect("it is at most 1,000");
    let cluster = query.name("cluster")?.map(ClusterName::from);
    let wait = Duration::from_secs(query.number("wait", MAX_WAIT)?.unwrap_or(0));
    let request = Request::Events { after, limit, cluster };
    asked.0.wait = wait;
    if wait.is_zero() {
        return Ok(api.answer(request, asked).await);
    }
    let _place = api.place_to_wait()?;
    let until = api.clock.now().moment + wait;
    loop {
        match api.handle.ask(request.clone()).await? {
            Response::Events(events) if events.is_empty() && api.clock.now().moment < until => {}
            Response::Refused(refusal) => return Ok(api.refused(refusal, asked).await),
            response => return Ok(Answer::from(response)),
        }
        let left = api.clock.now().moment.until(until);
        tokio::time::sleep(left.min(WAIT_STEP)).await;
    }
}

/// As this watcher knows it: whoever asks wants to know at once, and of a leader that may just be lost.
async fn urgent(State(api): State<Api>, Path(name): Path<String>, pairs: Pairs) -> Answered {
    let query = Query::read(pairs.0, &["wait", "unless"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let wait = Duration::from_secs(query.number("wait", MAX_WAIT)?.unwrap_or(0));
    let unless = query.whether("unless")?;
    let mut changes = api.handle.changes();
    if !wait.is_zero() {
        let _place = api.place_to_wait()?;
        let news = |health: &NodeHealth| Some(health.urgent.contains(&cluster)) != unless;
        // When it takes too long, the same is told again.
        let _ = tokio::time::timeout(wait, changes.wait_for(news)).await;
    }
    let urgent = changes.borrow().urgent.contains(&cluster);
    Ok(Answer::ok(&UrgentBody { urgent }))
}

async fn adopt(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut asked: Asked,
    body: Sent,
) -> Answered {
    let body = asked.take_body(body)?;
    let fields = Fields::read(&body, &["primary"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let primary = ServerName::from(fields.required_name("primary")?);
    Ok(api.answer(Request::Adopt { cluster, primary }, asked).await)
}

async fn switchover(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut asked: Asked,
    body: Sent,
) -> Answered {
    let body = asked.take_body(body)?;
    let fields = Fields::read(&body, &["to", "dry_run"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let to = fields.name("to")?.map(ServerName::from);
    let dry_run = fields.flag("dry_run")?;
    Ok(api.answer(Request::Switchover { cluster, to, dry_run }, asked).await)
}

async fn failover(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut asked: Asked,
    body: Sent,
) -> Answered {
    let body = asked.take_body(body)?;
    let fields = Fields::read(&body, &["to", "accept_loss", "dry_run"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let to = fields.name("to")?.map(ServerName::from);
    let accept_loss = fields.flag("accept_loss")?;
    let dry_run = fields.flag("dry_run")?;
    Ok(api.answer(Request::Failover { cluster, to, accept_loss, dry_run }, asked).await)
}

async fn rejoin(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut asked: Asked,
    body: Sent,
) -> Answered {
    let body = asked.take_body(body)?;
    let known = ["server", "rebuild", "from", "accept_loss", "dry_run"];
    let fields = Fields::read(&body, &known)?;
    let request = Request::Rejoin {
        cluster: ClusterName::from(checked_name("cluster", &name)?),
        server: ServerName::from(fields.required_name("server")?),
        rebuild: fields.flag("rebuild")?,
        donor: fields.name("from")?.map(ServerName::from),
        accept_loss: fields.flag("accept_loss")?,
        dry_run: fields.flag("dry_run")?,
    };
    Ok(api.answer(request, asked).await)
}

async fn repair(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut asked: Asked,
    body: Sent,
) -> Answered {
    let body = asked.take_body(body)?;
    let fields = Fields::read(&body, &["dry_run"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let dry_run = fields.flag("dry_run")?;
    Ok(api.answer(Request::Repair { cluster, dry_run }, asked).await)
}

async fn maintain(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut asked: Asked,
    body: Sent,
) -> Answered {
    let body = asked.take_body(body)?;
    let fields = Fields::read(&body, &["server", "for", "reason", "by", "new_data"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let server = fields.name("server")?.map(ServerName::from);
    let lasts = fields.required_span("for")?;
    let reason = fields.required_text("reason")?.to_owned();
    let by = fields.name("by")?.unwrap_or_default().to_owned();
    let new_data = fields.flag("new_data")?;
    let request = Request::Maintain { cluster, server, lasts, reason, by, new_data };
    Ok(api.answer(request, asked).await)
}

async fn end_maintenance(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut asked: Asked,
    body: Sent,
) -> Answered {
    let body = asked.take_body(body)?;
    let fields = Fields::read(&body, &["server", "by", "new_data"])?;
    let cluster = ClusterName::from(checked_name("cluster", &name)?);
    let server = fields.name("server")?.map(ServerName::from);
    let by = fields.name("by")?.unwrap_or_default().to_owned();
    let new_data = fields.flag("new_data")?;
    Ok(api.answer(Request::EndMaintenance { cluster, server, by, new_data }, asked).await)
}

async fn metrics_text(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.metrics.render())
}

async fn ready(State(api): State<Api>) -> Answer {
    let health = api.handle.health();
    let ready = health.ready && health.leader.is_some();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let leader = health.leader.map(|leader| leader.0);
    Answer::json(status, &ReadyBody { ready, leader, term: health.term })
}

async fn no_such_route(uri: Uri) -> Answer {
    let text = format!("there is no route {}; docs/api.md lists them all", uri.path());
    Answer::error(StatusCode::NOT_FOUND, "unknown", text)
}

async fn wrong_method(method: Method, uri: Uri) -> Answer {
    let text = format!("{} does not take {method}; docs/api.md lists the methods", uri.path());
    Answer::error(StatusCode::METHOD_NOT_ALLOWED, "bad_input", text)
}

/// What is needed to pass the request on, and whether that may still be done.
#[derive(Debug)]
struct Asked(Passed, Hops, bool);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hops {
    None,
    One,
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Asked {
    type Rejection = Answer;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _state: &S,
    ) -> Result<Asked, Answer> {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let hops = if parts.headers.contains_key(HOP) { Hops::One } else { Hops::None };
        let method = parts.method.clone();
        let passed = Passed { method, target, body: Bytes::new(), wait: Duration::ZERO };
        Ok(Asked(passed, hops, is_json(&parts.headers)))
    }
}

impl Asked {
    /// Keeps the body, so that it can be passed on.
    ///
    /// Only `application/json` is taken: a page in somebody's browser cannot send that to another
    /// origin without asking first, so it cannot move a primary.
    fn take_body(&mut self, sent: Sent) -> Result<Bytes, Answer> {
        let body = sent.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let text = format!("the body is larger than {MAX_BODY} bytes");
                Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
            }
            _ => Answer::bad_input("the body ended early"),
        })?;
        if !self.2 {
            let text = "content-type is not application/json; send the body as JSON";
            return Err(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_input", text));
        }
        self.0.body = body.clone();
        Ok(body)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.split(';').next().unwrap_or("").trim() == "application/json")
}

impl Api {
    /// Room for one more request that waits for something to happen.
    fn place_to_wait(&self) -> Result<SemaphorePermit<'_>, Answer> {
        self.long_polls.try_acquire().map_err(|_| {
            let text = format!("{MAX_LONG_POLLS} requests wait for something already");
            Answer::busy(text + "; ask without wait")
        })
    }

    /// Asks the watcher; when another one leads, asks that one.
    async fn answer(&self, request: Request, asked: Asked) -> Answer {
        match self.handle.ask(request).await {
            Ok(Response::Refused(refusal)) => self.refused(refusal, asked).await,
            Ok(response) => Answer::from(response),
            Err(unavailable) => Answer::from(unavailable),
        }
    }

    async fn refused(&self, refusal: Refusal, asked: Asked) -> Answer {
        if refusal.code != RefusalCode::NotLeader {
            return Answer::from(refusal);
        }
        let Some(leader) = &refusal.leader else {
            return Answer::no_leader("no watcher leads; an election may be under way, try again");
        };
        if asked.1 == Hops::One {
            return Answer::no_leader("the leader is changing; try again in a second");
        }
        match self.handle.api_of(leader) {
            Some(address) if leader != self.handle.name() => {
                self.forwarder.pass(leader, address, asked.0).await
            }
            _ => Answer::no_leader(format!("watcher {leader} leads but has no known address")),
        }
    }

    /// The status of everything, at most [`STATUS_KEPT`] old. Whoever comes while it is being
    /// asked for waits and shares the answer, failures included.
    async fn status(&self, asked: &Asked) -> Result<Arc<StatusView>, Answer> {
        let mut kept = self.status.lock().await;
        let now = self.clock.now().moment;
        if let Some(kept) = kept.as_ref().filter(|kept| now.since(kept.at) < STATUS_KEPT) {
            return kept.status.clone();
        }
        let status = self.fresh_status(asked.1).await;
        *kept = Some(Kept { at: self.clock.now().moment, status: status.clone() });
        status
    }

    async fn fresh_status(&self, hops: Hops) -> Result<Arc<StatusView>, Answer> {
        let refusal = match self.handle.ask(Request::Status { cluster: None }).await? {
            Response::Status(view) => return Ok(Arc::new(view)),
            Response::Refused(refusal) => refusal,
            other => {
                let text = format!("the watcher answered a status with {}", kind_of(&other));
                return Err(Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", text));
            }
        };
        let passed = Passed {
            method: Method::GET,
            target: "/v1/status".to_owned(),
            body: Bytes::new(),
            wait: Duration::ZERO,
        };
        let answer = self.refused(refusal, Asked(passed, hops, true)).await;
        if answer.status != StatusCode::OK {
            return Err(answer);
        }
        serde_json::from_slice(&answer.body).map(Arc::new).map_err(|error| {
            let text = format!("the leader's status is not understood: {error}");
            Answer::error(StatusCode::BAD_GATEWAY, "internal", text)
        })
    }
}

fn kind_of(response: &Response) -> &'static str {
    match response {
        Response::Status(_) => "a status",
        Response::Explanation(_) => "an explanation",
        Response::Events(_) => "events",
        Response::Procedure(_) => "a procedure",
        Response::Opened { .. } => "a new procedure",
        Response::Done { .. } => "a success",
        Response::Refused(_) => "a refusal",
    }
}

fn find<'a>(all: &'a StatusView, name: &str) -> Result<&'a super::types::ClusterView, Answer> {
    all.clusters.iter().find(|cluster| cluster.name.as_str() == name).ok_or_else(|| {
        let known: Vec<&str> = all.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let text = format!("there is no cluster {name}; known: {}", known.join(", "));
        Answer::error(StatusCode::NOT_FOUND, "unknown", text)
    })
}
