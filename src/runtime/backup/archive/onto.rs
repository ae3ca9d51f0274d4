//! The server that archived transactions are carried out on.

use crate::config::Account;
use crate::config::backups::Tools;
use crate::decision::report::Status;
use crate::decision::topology::{Flavor, ServerName};
use crate::runtime::backup::BackupError;
use crate::runtime::backup::restoring::{Destination, look, session};
use crate::runtime::backup::throwaway::Throwaway;
use crate::runtime::backup::tool::{Reach, Way};
use crate::runtime::mysql::status::{StatusError, learn, read};
use mysql_async::Conn;

/// The server that archived transactions are carried out on.
#[derive(Clone, Copy, Debug)]
pub enum Onto<'a> {
    /// One that runs, over the network.
    Running(&'a Destination<'a>),
    /// One that was started on copied files for this, and that nobody else reaches.
    Copied(Copied<'a>),
}

/// A server on copied files.
#[derive(Clone, Copy, Debug)]
pub struct Copied<'a> {
    server: &'a Throwaway,
    account: &'a Account,
    tools: &'a Tools,
}

impl<'a> Copied<'a> {
    pub(in crate::runtime::backup) fn new(
        (server, account): (&'a Throwaway, &'a Account),
        tools: &'a Tools,
    ) -> Copied<'a> {
        Copied { server, account, tools }
    }
}

impl Onto<'_> {
    /// What it is called.
    pub(in crate::runtime::backup) fn name(&self) -> ServerName {
        match self {
            Onto::Running(destination) => ServerName(destination.address.to_string()),
            Onto::Copied(_) => ServerName::from("the server on the copied files"),
        }
    }

    /// A session there.
    pub(in crate::runtime::backup) async fn session(&self) -> Result<Conn, BackupError> {
        match self {
            Onto::Running(destination) => session(destination, &self.name()).await,
            Onto::Copied(copied) => {
                let connected = copied.server.connect().await;
                connected.map_err(|error| BackupError::server(&self.name(), error))
            }
        }
    }

    /// What it says of itself.
    pub(in crate::runtime::backup) async fn look(&self) -> Result<Status, BackupError> {
        if let Onto::Running(destination) = self {
            return look(destination, &self.name()).await;
        }
        let mut conn = self.session().await?;
        let status = async {
            let dialect = learn(&mut conn).await?;
            read(&mut conn, &dialect).await
        };
        status.await.map_err(|error: StatusError| BackupError::server(&self.name(), error))
    }

    /// How programs reach it.
    pub(super) fn reach(&self, flavor: Flavor) -> Reach<'_> {
        match self {
            Onto::Running(Destination { address, account, tools }) => {
                Reach { flavor, way: Way::Address(address), account, tools }
            }
            Onto::Copied(Copied { server, account, tools }) => {
                Reach { flavor, way: Way::Socket(server.socket()), account, tools }
            }
        }
    }
}
