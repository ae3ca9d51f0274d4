//! The command line: a client of the API, and the starter of nodes.

pub mod acting;
pub mod archive;
pub mod args;
pub mod backup;
pub mod chores;
pub mod explanation;
pub mod files;
pub mod latest;
pub mod logs;
pub mod maintaining;
mod making_way;
pub mod output;
pub mod procedure;
pub mod proof;
pub mod reach;
pub mod reading;
pub mod recovery;
pub mod rejoining;
pub mod restoring;
pub mod resuming;
pub mod retention;
pub mod schedules;
pub mod tables;
pub mod unpacking;

use args::{Cli, Command};
use output::Output;
use std::io;

/// Why a command did not do what it was asked for; each kind has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Asked for, understood and not done.
    #[error("{0}")]
    Refused(String),
    /// Not understood.
    #[error("{0}")]
    Usage(String),
    /// No watcher answered.
    #[error("{0}")]
    CannotReach(String),
    /// Something that should not happen.
    #[error("{0}")]
    Internal(String),
}

impl Failed {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failed::Refused(_) => 1,
            Failed::Usage(_) => 2,
            Failed::CannotReach(_) => 3,
            Failed::Internal(_) => 4,
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Internal(format!("failed to write the output: {error}"))
    }
}

/// Runs every command that is not a long-running node, which `main` starts itself.
pub async fn run(cli: &Cli, out: &mut Output) -> Result<(), Failed> {
    let global = &cli.global;
    match &cli.command {
        Command::Init { dir } => files::init(dir, out),
        Command::Validate { file } => files::validate(file, out),
        Command::Completion { shell } => files::completion(*shell, out),
        Command::Status { cluster } => reading::status(global, cluster.as_deref(), out).await,
        Command::Topology { cluster } => reading::topology(global, cluster, out).await,
        Command::Explain(explain) => reading::explain(global, explain, out).await,
        Command::Events(events) => reading::events(global, events, out).await,
        Command::Adopt { cluster, primary } => acting::adopt(global, cluster, primary, out).await,
        Command::Switchover(order) => acting::switchover(global, order, out).await,
        Command::Failover(order) => acting::failover(global, order, out).await,
        Command::Repair(order) => acting::repair(global, order, out).await,
        Command::Maintenance(order) => maintaining::maintenance(global, order, out).await,
        Command::Rejoin(order) if order.backup.from_backup.is_some() => {
            rejoining::from_backup(global, order, out).await
        }
        Command::Rejoin(order) => acting::rejoin(global, order, out).await,
        Command::Backup { order } => backup::backup(global, order, out).await,
        Command::Watch(_) | Command::Proxy(_) | Command::Agent(_) | Command::Demo(_) => {
            Err(Failed::Internal("this command is started elsewhere".to_owned()))
        }
    }
}
