//! Whether a cluster ended as it must: one server takes writes, the others follow it, no row is lost.

use crate::events::Event;
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
    pub fn of(reports: Vec<WriterReport>) -> Ledger {
        Ledger { reports }
    }

    pub fn add(&mut self, reports: Vec<WriterReport>) {
        self.reports.extend(reports);
    }

    /// What is missing anywhere, in words.
    pub async fn settle(&self, cluster: &Cluster) -> Vec<String> {
        let mut problems = Vec::new();
        for server in &cluster.servers {
            for report in &self.reports {
                match report.missing_rows(server.address()).await {
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
pub async fn caught_up(cluster: &Cluster, reports: &[WriterReport], limit: Duration) -> Result<()> {
    let looking = async {
        for (server, report) in
            cluster.servers.iter().flat_map(|server| reports.iter().map(move |it| (server, it)))
        {
            let missing = async || report.missing_rows(server.address()).await;
            while !missing().await.is_ok_and(|missing| missing.is_empty()) {
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
    reports: &[WriterReport],
) -> Result<(u64, Vec<String>)> {
    let mut problems = Vec::new();
    let mut writable = Vec::new();
    // One that is cut off or hangs cannot have been told anything; its rows are judged in the end.
    let asked = |server: &&Server| server.name() != former || event.fault().is_none();
    for server in stage.cluster.servers.iter().filter(asked) {
        if server.is_writable().await.unwrap_or(false) {
            writable.push(server.name());
        }
    }
    let [primary] = writable[..] else {
        return Ok((0, vec![format!("servers that take writes after the event: {writable:?}")]));
    };
    if primary == former {
        problems.push(format!("{former} still takes writes"));
    }
    let lost = lost(stage, primary, reports).await?;
    let rest = stage.cluster.servers.iter().filter(|server| {
        server.name() != primary && (event == Event::Switchover || server.name() != former)
    });
    for server in rest {
        problems.extend(strayed(server, named(&stage.cluster, primary)?).await);
    }
    Ok((lost, problems))
}

/// The number of acknowledged rows that a server lacks.
pub async fn lost(stage: &Stage, server: &str, reports: &[WriterReport]) -> Result<u64> {
    let mut lost = 0;
    for report in reports {
        let address = named(&stage.cluster, server)?.address();
        lost += report.missing_rows(address).await?.len() as u64;
    }
    Ok(lost)
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
    let host: String = row.get(format!("{source}_Host").as_str()).unwrap_or_default();
    let port: u16 = row.get(format!("{source}_Port").as_str()).unwrap_or_default();
    let source = format!("{host}:{port}");
    let runs = |thread: &str| {
        row.get::<String, _>(format!("{replica}_{thread}_Running").as_str()).unwrap_or_default()
    };
    let (receives, applies) = (runs("IO"), runs("SQL"));
    let follows = source == primary.address().to_string() && receives == "Yes" && applies == "Yes";
    (!follows)
        .then(|| format!("{name} follows {source} (receives: {receives}, applies: {applies})"))
}
