//! A whole cluster on one machine: real servers, watchers, a proxy and a client that notices outages.

mod answers;
pub mod cluster;
pub mod lab;
pub mod ports;
pub mod process;
mod screen;
pub mod servers;
pub mod sites;
mod story;
pub mod writer;

use servers::{DatabaseFlavor, ServerError};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What `regent demo` is asked to do.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Which database to run.
    pub flavor: DatabaseFlavor,
    /// Whether to tear everything down after the failover instead of leaving it up.
    pub once: bool,
    /// Whether the output may be coloured: only when it is a terminal.
    pub color: bool,
    /// The program whose `watch` and `proxy` commands are run; this very program when absent.
    pub program: Option<PathBuf>,
}

impl DemoOptions {
    fn cluster(&self) -> cluster::ClusterOptions {
        let program = self.program.clone();
        cluster::ClusterOptions { program, ..cluster::ClusterOptions::new(self.flavor) }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DemoOutcome {
    /// The longest time without an acknowledged commit around the kill, as the shop saw it.
    pub outage: Duration,
    /// Rows acknowledged in all.
    pub acknowledged: u64,
    /// Rows acknowledged after the primary was killed.
    pub acknowledged_after: u64,
    /// Acknowledged rows that the new primary lacks.
    pub missing: usize,
    /// The servers that accept writes in the end.
    pub writable: Vec<String>,
    /// The primary that was killed.
    pub killed: String,
    /// Whether a signal ended it before its end; nothing else is meaningful then.
    pub interrupted: bool,
}

impl DemoOutcome {
    /// Whether writes went on, on exactly one other server, without losing an acknowledged row.
    pub fn is_success(&self) -> bool {
        !self.interrupted
            && self.acknowledged_after > 0
            && self.missing == 0
            && self.writable.len() == 1
            && !self.writable.contains(&self.killed)
    }
}

/// Why the demonstration could not be given.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A database server failed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A file, process or the output failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The HTTP client could not be made.
    #[error("http: {0}")]
    Http(#[from] reqwest::Error),
    /// No free loopback ports are left.
    #[error("no free ports on loopback")]
    NoPorts,
    /// A watcher or the proxy ended by itself.
    #[error("{name} ended; the end of its log:\n{log}")]
    Ended {
        /// Which one.
        name: String,
        /// Its last lines.
        log: String,
    },
    /// The cluster did not come to serve.
    #[error("the cluster was not whole within {limit:?}; last seen: {status}")]
    NotWhole {
        /// How long it was waited for.
        limit: Duration,
        /// The last status, if any.
        status: String,
    },
}

/// Runs the demonstration, telling it on `out`. SIGINT, SIGTERM and SIGHUP end it early; whichever way it
/// ends, no process and no directory of it remains.
pub async fn run(
    options: DemoOptions,
    out: &mut (dyn Write + Send),
) -> Result<DemoOutcome, DemoError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let ended = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    };
    // Dropping the story drops the cluster, which ends its processes and removes its files.
    tokio::select! {
        outcome = story::tell(&options, out) => outcome,
        () = ended => Ok(DemoOutcome { interrupted: true, ..DemoOutcome::default() }),
    }
}
