//! The cluster that is measured, and what is asked of its watchers.

use crate::events::Event;
use crate::{backup, beside};
use anyhow::{Context, Result, bail};
use regent::api::client::Client;
use regent::api::types::{
    ClusterView, EventView, OpenedBody, ProcedureView, StatusView, SwitchoverBody,
};
use regent::demo::cluster::{Cluster, ClusterOptions};
use regent::demo::servers::DatabaseFlavor;
use regent::demo::sites::Sites;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Between two looks at something that is coming about.
const LOOK: Duration = Duration::from_millis(50);

/// A running cluster with three watchers and its proxies.
pub struct Stage {
    pub cluster: Cluster,
    client: Client,
}

impl Stage {
    /// Starts everything that these events take, and waits until it serves.
    pub async fn set(
        flavor: DatabaseFlavor,
        sites: Option<Sites>,
        events: &[Event],
    ) -> Result<Stage> {
        let program = Some(env!("CARGO_BIN_EXE_regent").into());
        let rules = Some(rules());
        let options = ClusterOptions { program, sites, rules, ..ClusterOptions::new(flavor) };
        let mut cluster = Cluster::start_servers(&options).await?;
        let backed_up = events.iter().any(|event| event.beside().is_some());
        if backed_up {
            beside::configure(&cluster, flavor)?;
        }
        cluster.start_regent()?;
        let client = Client::new(cluster.urls())?;
        let mut stage = Stage { cluster, client };
        stage.wait_until_healthy(Duration::from_secs(30)).await?;
        if backed_up {
            let primary = stage.primary().await?;
            let primary = stage.cluster.server(&primary).context("an unknown primary")?;
            backup::fill(primary, beside::MEGABYTES).await?;
            stage.wait_until_healthy(Duration::from_secs(120)).await?;
        }
        Ok(stage)
    }

    /// What the watchers say of the cluster.
    pub async fn view(&self) -> Result<ClusterView> {
        let status: StatusView = self.client.get("/v1/status", Duration::ZERO).await?.view;
        let of_name = |cluster: &ClusterView| cluster.name.as_str() == Cluster::NAME;
        status.clusters.into_iter().find(of_name).context("the cluster is not in the status")
    }

    /// Who leads the watchers.
    pub async fn leader(&self) -> Result<Option<String>> {
        let status: StatusView = self.client.get("/v1/status", Duration::ZERO).await?.view;
        Ok(status.leader.map(|leader| leader.to_string()))
    }

    /// Where a server stands.
    pub fn data_center(&self, server: &str) -> Option<&'static str> {
        let site = self.cluster.sites().servers.iter().find(|site| site.name == server);
        site.map(|site| site.data_center)
    }

    /// The primary's name.
    pub async fn primary(&self) -> Result<String> {
        let primary = self.view().await?.primary.context("there is no primary")?;
        Ok(primary.to_string())
    }

    /// Waits until the watchers find nothing wrong and nothing is under way.
    pub async fn wait_until_healthy(&self, limit: Duration) -> Result<()> {
        let asking = async {
            // Once may be the moment before a finding; three times in a row is no accident.
            let mut calm = 0;
            while calm < 3 {
                let healthy = self.view().await.is_ok_and(|view| {
                    let fit = |server: &regent::api::types::ServerView| server.health == "healthy";
                    view.state == "healthy"
                        && view.procedure.is_none()
                        && view.findings.is_empty()
                        && view.servers.iter().all(fit)
                });
                calm = if healthy { calm + 1 } else { 0 };
                sleep(LOOK * 2).await;
            }
        };
        if timeout(limit, asking).await.is_ok() {
            return Ok(());
        }
        let view = self.view().await?;
        let findings: Vec<_> = view.findings.iter().map(|finding| &finding.text).collect();
        bail!("not healthy after {limit:?}: {} {} {findings:?}", view.state, view.reason)
    }

    /// Asks for a switchover, to the best candidate unless one is named, and returns when it has ended.
    pub async fn switch_over(&self, to: Option<&str>) -> Result<ProcedureView> {
        let cluster = Cluster::NAME;
        let path = format!("/v1/clusters/{cluster}/switchover");
        let body = SwitchoverBody { to: to.map(Into::into), ..SwitchoverBody::default() };
        let opened: OpenedBody = self.client.post(&path, &body).await?.view;
        let path = format!("/v1/clusters/{cluster}/procedures/{}", opened.procedure);
        let asking = async {
            loop {
                let view: ProcedureView = self.client.get(&path, Duration::ZERO).await?.view;
                if view.state != "running" {
                    return anyhow::Ok(view);
                }
                sleep(LOOK).await;
            }
        };
        let limit = Duration::from_secs(30);
        timeout(limit, asking).await.context("the switchover did not end within 30 s")?
    }

    /// As [`Stage::switch_over`], again and again while the server is refused: it may have come back a
    /// moment ago.
    pub async fn switch_over_once_it_can(&self, to: &str, limit: Duration) -> Result<()> {
        let asking = async {
            while self.switch_over(Some(to)).await.is_err() {
                sleep(LOOK * 10).await;
            }
        };
        timeout(limit, asking).await.with_context(|| format!("{to} could not take over"))
    }

    /// The newest procedure.
    pub async fn latest_procedure(&self) -> Result<ProcedureView> {
        let path = format!("/v1/clusters/{}/procedures/latest", Cluster::NAME);
        Ok(self.client.get(&path, Duration::ZERO).await?.view)
    }

    /// The number of the newest event.
    pub async fn last_event(&self) -> Result<u64> {
        let mut last = 0;
        loop {
            let events = self.events(last).await?;
            match events.last() {
                Some(event) => last = event.seq,
                None => return Ok(last),
            }
        }
    }

    /// Events numbered above `after`, oldest first.
    pub async fn events(&self, after: u64) -> Result<Vec<EventView>> {
        let path = format!("/v1/events?after={after}&limit=1000&cluster={}", Cluster::NAME);
        Ok(self.client.get(&path, Duration::ZERO).await?.view)
    }
}

/// The default rules with larger budgets: no primary fails ten times in a quarter of an hour.
fn rules() -> String {
    let mut text = String::new();
    for line in include_str!("../../failover-rules/default.yaml").lines() {
        let budget = line.trim_start().starts_with("per_hour:");
        let kept = line.split("per_hour:").next().filter(|_| budget);
        text += &kept.map_or(line.to_owned(), |indent| format!("{indent}per_hour: 1000"));
        text.push('\n');
    }
    text
}
