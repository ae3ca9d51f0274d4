//! MySQL's own Group Replication under the same faults: three members, one primary, the members that
//! fall silent expelled at once, and a router beside the clients.

use crate::events::Event;
use crate::failover::{
    CLIENTS, Measured, Run, Shops, WARM_UP, WINDOW, WRITES_AGAIN, errors_of, millis,
};
use crate::report::progress;
use crate::router::Router;
use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use regent::demo::lab::{Cut, Lab, Place};
use regent::demo::ports::free_ports;
use regent::demo::servers::accounts::REPLICATION;
use regent::demo::servers::{DatabaseFlavor, Installation, Server, ServerOptions, ServerSet};
use regent::demo::sites::{Site, Sites};
use regent::demo::writer::{Writer, WriterOptions, WriterReport};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// What it is called in the tables.
const NAME: &str = "Group Replication";
/// How long a group may take to be whole.
const MEND: Duration = Duration::from_secs(120);
/// How long a new primary may take to apply what the group has agreed on.
const APPLY: Duration = Duration::from_secs(30);

const ONLINE: &str = "SELECT COUNT(*) FROM performance_schema.replication_group_members \
                      WHERE MEMBER_STATE = 'ONLINE'";

/// Every event that it can be made to suffer, as often as Regent.
pub async fn measure(events: &[Event], runs: u32, lab: Option<&mut Lab>, measured: &mut Measured) {
    // Backups are Regent's; the group would have none beside it.
    let faults = events.iter().copied().filter(|event| event.fault().is_some());
    let faults: Vec<_> = faults.filter(|event| event.beside().is_none()).collect();
    if let Err(error) = campaign(&faults, runs, lab, &mut measured.runs).await {
        progress(&format!("bench: {error:#}"));
        measured.broken.push(format!("{error:#}"));
    }
}

async fn campaign(
    events: &[Event],
    runs: u32,
    mut lab: Option<&mut Lab>,
    done: &mut Vec<Run>,
) -> Result<()> {
    progress(&format!("{NAME}: starting three members"));
    let sites = match lab.as_deref() {
        Some(lab) => lab.sites(),
        None => Sites::loopback()?,
    };
    let mut group = Group::start(sites).await?;
    for number in 1..=runs {
        for event in events {
            let run = group.run(*event, lab.as_deref_mut()).await;
            let run = run.with_context(|| format!("{NAME} {event} {number}"))?;
            progress(&format!("{NAME} {event} {number}/{runs}: {}", run.line()));
            done.push(run);
        }
    }
    Ok(())
}

struct Group {
    sites: Sites,
    members: Vec<Server>,
    next_client: u32,
    _directory: TempDir,
}

impl Group {
    async fn start(sites: Sites) -> Result<Group> {
        let directory = tempfile::Builder::new().prefix("regent-bench-").tempdir()?;
        let set = ServerSet::new(directory.path(), Installation::find(DatabaseFlavor::Mysql)?)?;
        let ports = free_ports(sites.servers.len());
        let talk: Vec<_> = sites
            .servers
            .iter()
            .zip(&ports)
            .map(|(site, port)| format!("{}:{port}", site.host.address))
            .collect();
        let hosts: Vec<_> =
            sites.servers.iter().map(|site| site.host.address.to_string()).collect();
        let mut members = Vec::new();
        for (site, own) in sites.servers.iter().zip(&talk) {
            let options = ServerOptions {
                host: site.host.clone(),
                read_only: false,
                extra: settings(own, &talk.join(","), &hosts.join(",")),
                ..ServerOptions::default()
            };
            members.push(set.start(site.name, site.address(0).port(), options).await?);
        }
        let first = members.first().context("a group needs members")?;
        first.execute("SET GLOBAL group_replication_bootstrap_group=ON").await?;
        join(first).await?;
        first.execute("SET GLOBAL group_replication_bootstrap_group=OFF").await?;
        first.wait_for(ONLINE, 1).await?;
        set.lay_out_shop(first).await?;
        for other in &members[1..] {
            join(other).await?;
        }
        let group = Group { sites, members, next_client: 1, _directory: directory };
        group.whole().await?;
        Ok(group)
    }

    async fn run(&mut self, event: Event, mut lab: Option<&mut Lab>) -> Result<Run> {
        let former = self.primary(None).await.context("there is no primary")?;
        let (mut shops, routers) = self.open_shops(lab.as_deref()).await?;
        shops.write_on().await.context("nothing could be written before the event")?;
        sleep(WARM_UP).await;
        shops.mark();
        sleep(WINDOW).await;
        let baseline = shops.longest_gap();
        let site = self.site(&former)?.clone();
        let lost = (event == Event::DataCenter).then_some(site.data_center);
        let apart: Vec<_> = shops.0.extract_if(.., |(place, _)| lost == Some(*place)).collect();

        shops.mark();
        self.strike(event, &site, lab.as_deref_mut())?;
        sleep(Duration::from_millis(50)).await;
        let mut problems = Vec::new();
        if shops.write_on().await.is_err() {
            problems.push(format!("writes did not go on within {WRITES_AGAIN:?}"));
        }
        sleep(WINDOW).await;
        let outage = shops.longest_gap();
        let mut reports = shops.close().await;
        reports.extend(Shops(apart).close().await);
        drop(routers);

        let lost = match self.primary(Some(&former)).await {
            Some(primary) => self.lost(&primary, &reports).await?,
            None => {
                problems.push("no other member became the primary".to_owned());
                0
            }
        };
        self.bring_back(event, &former, lab).await?;
        Ok(Run {
            flavor: NAME.to_owned(),
            event,
            outage_ms: millis(outage),
            baseline_ms: millis(baseline),
            detected_ms: None,
            opened_ms: None,
            errors: errors_of(&reports),
            acknowledged: reports.iter().map(WriterReport::count).sum(),
            lost,
            steps: Vec::new(),
            diverged: false,
            problems,
        })
    }

    /// Acknowledged rows that a new primary lacks once it has applied all that it will.
    async fn lost(&self, primary: &str, reports: &[WriterReport]) -> Result<u64> {
        let address = self.site(primary)?.address(0);
        let reading = async {
            loop {
                let mut missing = 0;
                for report in reports {
                    missing += report.missing_rows(address).await?.len() as u64;
                }
                if missing == 0 {
                    return anyhow::Ok(0);
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        if let Ok(none) = tokio::time::timeout(APPLY, reading).await {
            return none;
        }
        let mut missing = 0;
        for report in reports {
            missing += report.missing_rows(address).await?.len() as u64;
        }
        Ok(missing)
    }

    /// Clients beside each proxy's place, each with a router of their own.
    async fn open_shops(&mut self, lab: Option<&Lab>) -> Result<(Shops, Vec<Router>)> {
        let members: Vec<_> = self.sites.servers.iter().map(|site| site.address(0)).collect();
        let clients = CLIENTS / self.sites.proxies.len().max(1) as u32;
        let (mut shops, mut routers) = (Vec::new(), Vec::new());
        for site in &self.sites.proxies {
            let first_client = self.next_client;
            self.next_client += clients;
            let options = WriterOptions { clients, first_client, ..WriterOptions::default() };
            let there = lab.and_then(|lab| lab.shop_beside(site.name)).cloned();
            let there = there.unwrap_or_else(Handle::current);
            let router = Router::start(members.clone(), &there).await?;
            let _inside = there.enter();
            shops.push((site.data_center, Writer::start(router.address, options)));
            routers.push(router);
        }
        Ok((Shops(shops), routers))
    }

    fn strike(&mut self, event: Event, primary: &Site, lab: Option<&mut Lab>) -> Result<()> {
        let host = Place::Host(primary.name);
        let cuts: Vec<Cut> = match event {
            Event::Kill => {
                self.member(primary.name)?.kill9();
                return Ok(());
            }
            Event::Hang => return Ok(self.member(primary.name)?.stop_hang()?),
            Event::Drop => Cut::alone(primary.name).into(),
            Event::DataCenter => Cut::whole(primary.data_center).into(),
            Event::Replication => {
                let others = self.sites.servers.iter().filter(|site| site.name != primary.name);
                others.flat_map(|site| Cut::between(host, Place::Host(site.name))).collect()
            }
            Event::Switchover | Event::KillDuringBackup | Event::KillDuringLimitedBackup => {
                anyhow::bail!("{event} is not what both can have")
            }
        };
        Ok(lab.context("a fault of the network needs a lab")?.cut(cuts)?)
    }

    /// The former primary starts anew and joins; empty when the group does not take it as it is.
    async fn bring_back(
        &mut self,
        event: Event,
        former: &str,
        lab: Option<&mut Lab>,
    ) -> Result<()> {
        if let Some(lab) = lab.filter(|_| event.needs_lab()) {
            lab.heal()?;
        }
        self.member(former)?.restart().await?;
        let joined = join(self.member(former)?).await;
        if joined.is_err() || self.whole().await.is_err() {
            progress(&format!("  {NAME} did not take {former} back as it was; emptied"));
            self.member(former)?.wipe_and_recreate().await?;
            join(self.member(former)?).await?;
        }
        self.whole().await
    }

    /// Every member is in the group, as each of them sees it.
    async fn whole(&self) -> Result<()> {
        let all = self.members.len() as u64;
        for member in &self.members {
            member.wait_for_within(ONLINE, all, MEND).await?;
        }
        Ok(())
    }

    /// The primary, as it says itself; the former one is not asked.
    async fn primary(&self, former: Option<&str>) -> Option<String> {
        let query = "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE \
                     MEMBER_ID = @@server_uuid AND MEMBER_ROLE = 'PRIMARY' AND MEMBER_STATE = 'ONLINE'";
        for member in self.members.iter().filter(|member| Some(member.name()) != former) {
            if let Ok(Some(1)) = member.query::<u64>(query).await {
                return Some(member.name().to_owned());
            }
        }
        None
    }

    fn site(&self, name: &str) -> Result<&Site> {
        self.sites.servers.iter().find(|site| site.name == name).context("no such member")
    }

    fn member(&mut self, name: &str) -> Result<&mut Server> {
        let found = self.members.iter_mut().find(|member| member.name() == name);
        found.context("no such member")
    }
}

async fn join(member: &Server) -> Result<()> {
    let (user, password) = (REPLICATION.user, REPLICATION.password);
    let start = format!("START GROUP_REPLICATION USER='{user}', PASSWORD='{password}'");
    // The statement answers when the member is in the group, which may take longer than others.
    let mut connection = member.connect().await?;
    let joining = connection.query_drop(start);
    tokio::time::timeout(MEND, joining).await.context("it did not join in time")??;
    Ok(connection.disconnect().await?)
}

fn settings(own: &str, all: &str, hosts: &str) -> Vec<String> {
    vec![
        "--plugin-load-add=group_replication.so".to_owned(),
        "--loose-group-replication-group-name=9d2c6f50-6d3b-4c58-9a41-6f3f0e1c7a11".to_owned(),
        "--loose-group-replication-start-on-boot=OFF".to_owned(),
        "--loose-group-replication-member-expel-timeout=0".to_owned(),
        "--loose-group-replication-recovery-get-public-key=ON".to_owned(),
        format!("--loose-group-replication-local-address={own}"),
        format!("--loose-group-replication-group-seeds={all}"),
        // By itself a member lets in the networks of its own interfaces only.
        format!("--loose-group-replication-ip-allowlist={hosts},127.0.0.1"),
    ]
}
