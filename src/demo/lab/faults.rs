//! What can befall the primary, as tests and benchmarks share it.

use super::{Cut, Lab, LabError, Place};
use crate::demo::cluster::Cluster;
use crate::demo::servers::ServerError;
use std::fmt;

/// Something that makes the primary useless to its clients, and can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its process is killed as by a power cut; its host goes on and refuses connections.
    Kill,
    /// Its process runs no more and keeps its sockets (`SIGSTOP`).
    Hang,
    /// Every packet from and to its host is dropped.
    Drop,
    /// Every packet to its host is dropped.
    DropTo,
    /// Every packet from its host is dropped.
    DropFrom,
    /// Its data center is cut off from all others, with the watcher, the proxy and the clients in it.
    DataCenter,
    /// No replica reaches it, and watchers and clients do.
    Replication,
}

/// Why a fault could not be caused or undone.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// It needs a network of its own.
    #[error("a fault of the network needs a lab")]
    NoLab,
    /// There is no such server.
    #[error("no server {0}")]
    Unknown(String),
    /// The network could not be changed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The server could not be signalled or started.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Fault {
    /// Lets it befall this primary.
    pub fn strike(
        self,
        lab: Option<&mut Lab>,
        cluster: &mut Cluster,
        primary: &str,
    ) -> Result<(), FaultError> {
        let unknown = || FaultError::Unknown(primary.to_owned());
        let site = cluster.sites().servers.iter().find(|site| site.name == primary);
        let (name, data_center) =
            site.map(|site| (site.name, site.data_center)).ok_or_else(unknown)?;
        let host = Place::Host(name);
        let cuts: Vec<Cut> = match self {
            Fault::Kill => {
                cluster.server(name).ok_or_else(unknown)?.kill9();
                return Ok(());
            }
            Fault::Hang => return Ok(cluster.server(name).ok_or_else(unknown)?.stop_hang()?),
            Fault::Drop => Cut::alone(name).into(),
            Fault::DropTo => Cut::one_way(Place::Anywhere, host).into(),
            Fault::DropFrom => Cut::one_way(host, Place::Anywhere).into(),
            Fault::DataCenter => Cut::whole(data_center).into(),
            Fault::Replication => {
                let others = cluster.sites().servers.iter().filter(|site| site.name != name);
                others.flat_map(|site| Cut::between(host, Place::Host(site.name))).collect()
            }
        };
        Ok(lab.ok_or(FaultError::NoLab)?.cut(cuts)?)
    }

    /// Undoes it: what was killed starts, what hung goes on, and every packet passes.
    pub async fn end(
        self,
        lab: Option<&mut Lab>,
        cluster: &mut Cluster,
        primary: &str,
    ) -> Result<(), FaultError> {
        let server = cluster.server(primary);
        let server = server.ok_or_else(|| FaultError::Unknown(primary.to_owned()))?;
        match self {
            Fault::Kill => server.restart().await?,
            Fault::Hang => server.resume()?,
            _ => lab.ok_or(FaultError::NoLab)?.heal()?,
        }
        Ok(())
    }

    /// Whether clients in the primary's data center are cut off with it.
    pub fn takes_clients_along(self) -> bool {
        self == Fault::DataCenter
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "kill",
            Fault::Hang => "hang",
            Fault::Drop => "drop",
            Fault::DropTo => "drop to",
            Fault::DropFrom => "drop from",
            Fault::DataCenter => "data center",
            Fault::Replication => "replication cut",
        })
    }
}
