//! The agent's HTTP service: who it is, and a copy of its server's files, to whoever has the token.

use super::Told;
use super::copying::Beside;
use super::frames::{self, FORMAT};
use super::listener::{Listener, encryption};
use super::scratch::Scratch;
use super::sending::{Sending, WAITING};
use crate::config::Config;
use crate::config::agents::Agent;
use crate::config::secret::Secret;
use crate::decision::topology::{Endpoint, ServerName};
use crate::runtime::backup::BackupError;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the last frame may wait to be taken.
const LAST_FRAME: Duration = Duration::from_secs(300);
/// How long connections may take to end after the agent was told to.
const GRACE: Duration = Duration::from_secs(2);
/// How long a server may take to say what it is.
const ASKING: Duration = Duration::from_secs(30);

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Not declared, or not enough of it.
    #[error("{0}")]
    Undeclared(String),
    /// The scratch directory is not to be had.
    #[error("scratch {place}: {error}")]
    Scratch {
        /// Which.
        place: String,
        /// Why.
        error: io::Error,
    },
    /// The certificates cannot be used.
    #[error("security: {0}")]
    Security(String),
    /// The address cannot be listened on.
    #[error("failed to listen on {address}: {error}; is another agent running?")]
    Listen {
        /// Where.
        address: Endpoint,
        /// What the system said.
        error: io::Error,
    },
    /// The listener broke.
    #[error("failed to serve: {0}")]
    Serve(#[from] io::Error),
}

struct Service {
    beside: Beside,
    token: Secret,
    /// Whoever takes a copy holds it, until all of it is sent.
    place: Arc<Semaphore>,
    /// Held until nothing of a copy is left here either.
    scratch: Mutex<()>,
    sent: Arc<AtomicU64>,
    copies: TaskTracker,
    stop: CancellationToken,
}

/// Serves copies of that server until told to stop; then ends the one that is being taken.
pub async fn serve(config: &Config, name: &str, stop: CancellationToken) -> Result<(), AgentError> {
    let (beside, agent) = declared(config, name)?;
    let encryption = encryption(config.security.as_ref()).map_err(AgentError::Security)?;
    let encrypted = encryption.is_some();
    // Whoever is let in finds nothing of a former copy.
    beside.tidy().await;
    let listening = Listener::open(&agent.listen, encryption).await;
    let listener =
        listening.map_err(|error| AgentError::Listen { address: agent.listen.clone(), error })?;
    let service = Arc::new(Service {
        beside,
        token: agent.token,
        place: Arc::new(Semaphore::new(1)),
        scratch: Mutex::default(),
        sent: Arc::default(),
        copies: TaskTracker::new(),
        stop: stop.clone(),
    });
    tracing::info!(listen = %agent.listen, encrypted, "the agent of {name} runs");
    let stopped = stop.clone();
    let served = axum::serve(listener, router(service.clone()))
        .with_graceful_shutdown(async move { stopped.cancelled().await });
    let grace = async {
        stop.cancelled().await;
        service.copies.close();
        service.copies.wait().await;
        // A client that never closes its connection must not keep the process from ending.
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = async { served.await } => {
            service.copies.close();
            service.copies.wait().await;
            Ok(ended?)
        }
        () = grace => Ok(()),
    }
}

/// What is declared of a server and its agent.
fn declared(config: &Config, name: &str) -> Result<(Beside, Agent), AgentError> {
    let server = ServerName::from(name);
    let found = config.clusters.iter().find_map(|cluster| {
        let spec = cluster.spec.server(&server)?;
        Some((cluster, spec.clone()))
    });
    let Some((cluster, spec)) = found else {
        return Err(AgentError::Undeclared(format!("no server {name:?} is declared")));
    };
    let Some(agent) = cluster.agents.get(&server).cloned() else {
        let text = format!(
            "{name} is declared without an agent; write agent: {{ address: HOST:7402, token_file: FILE, \
             scratch: DIRECTORY }}"
        );
        return Err(AgentError::Undeclared(text));
    };
    let account = cluster.backups.as_ref().and_then(|backups| backups.account.clone());
    let account = account.unwrap_or_else(|| cluster.credentials.monitor.clone());
    for (secret, what) in [
        (&agent.token, "the agent's token".to_owned()),
        (&account.password, format!("the password of {}", account.user)),
    ] {
        if secret.reveal().is_empty() {
            let text =
                format!("{what} cannot be read; the agent of {name} needs it on this machine");
            return Err(AgentError::Undeclared(text));
        }
    }
    let tools = cluster.backups.as_ref().map(|backups| backups.tools.clone()).unwrap_or_default();
    let scratch = Scratch::open(&agent.scratch).map_err(|error| AgentError::Scratch {
        place: agent.scratch.display().to_string(),
        error,
    })?;
    Ok((Beside { server: spec, account, tools, scratch }, agent))
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/agent", get(told))
        .route("/v1/copy", post(copy))
        .fallback(|| std::future::ready(StatusCode::NOT_FOUND))
        .layer(from_fn_with_state(service.clone(), guard))
        .with_state(service)
}

/// Nothing is told to, and nothing done for, whoever has not the token.
async fn guard(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let shown = shown.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    // Sums are of one length, and comparing them takes as long wherever they differ.
    let same = Sha256::digest(shown).ct_eq(&Sha256::digest(service.token.reveal().as_bytes()));
    if !bool::from(same) {
        tracing::warn!("somebody without the right token asked for {}", request.uri().path());
        return refuse(StatusCode::UNAUTHORIZED, "the token is not this agent's");
    }
    next.run(request).await
}

fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text: String = text.into();
    text.push('\n');
    (status, text).into_response()
}

async fn told(State(service): State<Arc<Service>>) -> Response {
    let telling = tokio::time::timeout(ASKING, tell(&service)).await;
    match telling {
        Ok(Ok(told)) => Json(told).into_response(),
        Ok(Err(error)) => refuse(StatusCode::BAD_GATEWAY, error.to_string()),
        Err(_) => refuse(StatusCode::BAD_GATEWAY, "the server does not answer"),
    }
}

async fn tell(service: &Service) -> Result<Told, BackupError> {
    let beside = &service.beside;
    let mut conn = beside.connect().await?;
    let (method, tool) = beside.method(&mut conn).await?;
    let in_scratch = |error| BackupError::io(beside.scratch.root().display().to_string())(error);
    let busy = service.place.available_permits() == 0;
    Ok(Told {
        format: FORMAT,
        regent: env!("CARGO_PKG_VERSION").to_owned(),
        server: beside.server.name.to_string(),
        method,
        tool,
        free: beside.scratch.free().map_err(in_scratch)?,
        sent: busy.then(|| service.sent.load(Ordering::Relaxed)),
    })
}

async fn copy(State(service): State<Arc<Service>>) -> Response {
    let Ok(place) = service.place.clone().try_acquire_owned() else {
        return refuse(StatusCode::CONFLICT, "a copy is being taken already; try again later");
    };
    let (frames, taken) = mpsc::channel::<Bytes>(WAITING);
    let working = service.clone();
    service.copies.spawn(async move { work(&working, place, frames).await });
    let frames = stream::unfold(taken, |mut taken: mpsc::Receiver<Bytes>| async move {
        let frame = taken.recv().await?;
        Some((Ok::<_, io::Error>(frame), taken))
    });
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (kind, Body::from_stream(frames)).into_response()
}

/// Takes a copy, and leaves nothing of it here, whatever comes of it. Nobody waits for that but who wants the next
/// copy at once.
async fn work(service: &Service, place: OwnedSemaphorePermit, frames: mpsc::Sender<Bytes>) {
    let beside = &service.beside;
    let breath = Sending::breathe(frames.clone());
    let _held = service.scratch.lock().await;
    beside.tidy().await;
    let mut sending = Sending::new(frames.clone(), service.sent.clone());
    let copied = tokio::select! {
        biased;
        () = service.stop.cancelled() => Err(BackupError::Stopped),
        () = frames.closed() => {
            Err(BackupError::Unknown("whoever asked for the copy is gone".to_owned()))
        }
        copied = beside.copy(&mut sending) => copied,
    };
    breath.end().await;
    let server = &beside.server.name;
    let last = match copied {
        Ok(copied) => {
            let end = sending.end(copied);
            tracing::info!(bytes = end.bytes, "a copy of {server} was taken");
            frames::end(&end)
        }
        Err(error) => {
            tracing::warn!(%error, "no copy of {server} was taken");
            frames::failed(&error.to_string())
        }
    };
    // Who hears of the end may ask again.
    drop(place);
    let _ = tokio::time::timeout(LAST_FRAME, sending.send(last)).await;
    drop((frames, sending));
    beside.tidy().await;
}
