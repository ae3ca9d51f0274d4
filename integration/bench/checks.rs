//! Whether a cluster ended as it must: one server takes writes, the others follow it, no row is lost.

use crate::failover::Event;
use crate::stage::Stage;
use anyhow::{Context, Result};
use mysql_async::Row;
use regent::demo::cluster::Cluster;
use regent::demo::servers::{DatabaseFlavor, Server};
use regent::demo::writer::WriterReport;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Every acknowledgement of a campaign, to be compared with every server at its end.
#[derive(Default)]
pub struct Ledger {
    reports: Vec<WriterReport>,
}

impl Ledger {
    pub fn add(&mut self, report: WriterReport) {
        self.reports.push(report);
    }

    /// What is missing anywhere, in words.
    pub async fn settle(&self, cluster: &Cluster) -> Vec<String> {
        let mut problems = Vec::new();
        for server in &cluster.servers {
            for report in &self.reports {
                match report.missing_rows(server.port()).await {
                    Ok(missing) => problems.extend(lacking(server, &missing)),
                    Err(error) => {
                        problems
                            .push(format!("in the end {} was not read: {error}", server.name()));
                        break;
                    }
                }
            }
        }
        problems
    }
}

fn lacking(server: &Server, missing: &[(u32, u64)]) -> Option<String> {
    let (client, sequence) = missing.first()?;
    Some(format!(
        "in the end {} lacks {} acknowledged rows, such as number {sequence} of client {client}",
        server.name(),
        missing.len()
    ))
}

/// Waits until every server holds every acknowledged row, so that the next event meets a cluster that
/// has got over this one.
pub async fn caught_up(cluster: &Cluster, report: &WriterReport, limit: Duration) -> Result<()> {
    let looking = async {
        for server in &cluster.servers {
            while !report.missing_rows(server.port()).await.is_ok_and(|missing| missing.is_empty())
            {
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    Ok(timeout(limit, looking).await?)
}

/// Looks at the cluster right after an event: the number of acknowledged rows that the primary
/// lacks, and what else is wrong.
pub async fn after(
    stage: &Stage,
    event: Event,
    former: &str,
    report: &WriterReport,
) -> Result<(u64, Vec<String>)> {
    let mut problems = Vec::new();
    let writable = stage.cluster.writable().await;
    let [primary] = writable.as_slice() else {
        return Ok((0, vec![format!("servers that take writes after the event: {writable:?}")]));
    };
    if primary == former {
        problems.push(format!("{former} still takes writes"));
    }
    let lost = report.missing_rows(named(&stage.cluster, primary)?.port()).await?.len() as u64;
    let rest = stage.cluster.servers.iter().filter(|server| {
        server.name() != primary && (event == Event::Switchover || server.name() != former)
    });
    for server in rest {
        problems.extend(strayed(server, named(&stage.cluster, primary)?).await);
    }
    Ok((lost, problems))
}

/// Looks at the cluster when all of it runs.
pub async fn whole(stage: &Stage) -> Result<Vec<String>> {
    let writable = stage.cluster.writable().await;
    let [primary] = writable.as_slice() else {
        return Ok(vec![format!("servers that take writes in the end: {writable:?}")]);
    };
    let mut problems = Vec::new();
    if stage.primary().await.ok().as_ref() != Some(primary) {
        problems.push(format!("{primary} takes writes and the watchers name another"));
    }
    let primary = named(&stage.cluster, primary)?;
    for server in stage.cluster.servers.iter().filter(|server| server.name() != primary.name()) {
        problems.extend(strayed(server, primary).await);
    }
    Ok(problems)
}

fn named<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Server> {
    let found = cluster.servers.iter().find(|server| server.name() == name);
    found.context("no such server")
}

/// Why a server does not follow the primary; `None` when it does.
async fn strayed(server: &Server, primary: &Server) -> Option<String> {
    let (query, source, replica) = match server.flavor() {
        DatabaseFlavor::Mysql => ("SHOW REPLICA STATUS", "Source", "Replica"),
        DatabaseFlavor::Mariadb => ("SHOW SLAVE STATUS", "Master", "Slave"),
    };
    let name = server.name();
    let row = match server.query::<Row>(query).await {
        Ok(Some(row)) => row,
        Ok(None) => return Some(format!("{name} follows nobody")),
        Err(error) => return Some(format!("{name}: {error}")),
    };
    let port: u16 = row.get(format!("{source}_Port").as_str()).unwrap_or_default();
    let runs = |thread: &str| {
        row.get::<String, _>(format!("{replica}_{thread}_Running").as_str()).unwrap_or_default()
    };
    let (receives, applies) = (runs("IO"), runs("SQL"));
    let follows = port == primary.port() && receives == "Yes" && applies == "Yes";
    (!follows)
        .then(|| format!("{name} follows port {port} (receives: {receives}, applies: {applies})"))
}
