//! The stage: a cluster of processes, a shop that writes, and what must hold whatever happened.

use crate::asking::{Said, Shop, Watchers, run};
use mysql_async::prelude::Queryable;
use regent::demo::cluster::{Cluster, ClusterOptions};
use regent::demo::lab::{Fault, Lab, Volume};
use regent::demo::process::tail;
use regent::demo::servers::accounts::{MONITOR, REPLICATION};
use regent::demo::servers::{DatabaseFlavor, Installation, Server};
use regent::demo::writer::{Writer, WriterOptions, WriterReport};
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// What a scenario or a part of one ends with.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Connections that write at the same time, divided among the shops.
const CLIENTS: u32 = 4;

/// Enough for a server that holds next to nothing.
const MEGABYTES: u64 = 900;

/// Everything ends by itself within this, or never.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A copy of a server over a long line takes hundreds of round trips beside.
const COPYING: Duration = Duration::from_secs(120);

/// A cluster with a shop beside each proxy.
pub struct Stage {
    // Declared first: what hangs on a stalled file system can be ended only when it goes on.
    pub volume: Option<Volume>,
    pub cluster: Cluster,
    pub watchers: Watchers,
    /// The shops that write, each with its data center.
    pub writers: Vec<(&'static str, Writer)>,
    /// What earlier writers were told is committed.
    reports: Vec<WriterReport>,
    // Declared last: hosts outlive what runs on them.
    lab: Option<Lab>,
}

/// Plays a scenario on a lossless cluster whose servers replicate and nothing of Regent runs yet.
pub async fn play(flavor: DatabaseFlavor, scenario: impl AsyncFnOnce(&mut Stage) -> Outcome) {
    play_with(Setting::new(flavor), scenario).await;
}

/// What a scenario is played on.
pub struct Setting {
    pub cluster: ClusterOptions,
    /// The lab that the cluster stands in, if it does in one.
    pub lab: Option<Lab>,
    /// The server that has a small file system of its own.
    pub small_disk_of: Option<&'static str>,
}

impl Setting {
    /// A lossless cluster on loopback.
    pub fn new(flavor: DatabaseFlavor) -> Setting {
        Setting { cluster: ClusterOptions::new(flavor), lab: None, small_disk_of: None }
    }
}

/// Like [`play`], in a setting of the caller's.
pub async fn play_with(setting: Setting, scenario: impl AsyncFnOnce(&mut Stage) -> Outcome) {
    let Setting { cluster: mut options, lab, small_disk_of } = setting;
    if !is_there(Installation::find(options.flavor)) {
        return;
    }
    let _alone = take_turn();
    let place = tempfile::Builder::new().prefix("regent-test-").tempdir().expect("a directory");
    options.directory = Some(place.path().to_owned());
    options.program = Some(env!("CARGO_BIN_EXE_regent").into());
    let volume = small_disk_of.map(|server| {
        let at = place.path().join("servers").join(server);
        Volume::mount(&place.path().join("small.disk"), &at, MEGABYTES).expect("a file system")
    });
    let mut stage = match Stage::set(&options, lab, volume).await {
        Ok(stage) => stage,
        Err(error) => panic!("the stage could not be set: {error}"),
    };
    let ended = scenario(&mut stage).await;
    let ended = ended.and_then(|()| stage.no_secret_is_told());
    if let Err(error) = ended {
        let told = stage.tell().await;
        let kept = place.keep();
        panic!("{error}\n{told}\neverything is kept in {}", kept.display());
    }
    stage.cluster.stop().await;
}

impl Stage {
    async fn set(
        options: &ClusterOptions,
        lab: Option<Lab>,
        volume: Option<Volume>,
    ) -> Outcome<Stage> {
        let cluster = Cluster::start_servers(options).await?;
        let watchers = Watchers::new(cluster.urls())?;
        let (writers, reports) = (Vec::new(), Vec::new());
        Ok(Stage { volume, cluster, watchers, writers, reports, lab })
    }

    /// Starts watchers, proxies and shops, and waits until orders come in.
    pub async fn begin(&mut self) -> Outcome {
        self.cluster.start_regent()?;
        self.whole().await?;
        self.start_writer();
        self.writes_go_on().await
    }

    /// Lets a shop beside each proxy write through it.
    pub fn start_writer(&mut self) {
        let proxies = &self.cluster.sites().proxies;
        // No more in all than a replica that comes back can catch up with.
        let clients = (CLIENTS / proxies.len().max(1) as u32).max(1);
        for site in proxies {
            // Numbers are never used twice, so that every report can be checked at the end.
            let first_client = 1 + 100 * (self.reports.len() + self.writers.len()) as u32;
            let options = WriterOptions { clients, first_client, ..WriterOptions::default() };
            let there = self.lab.as_ref().and_then(|lab| lab.shop_beside(site.name));
            let _inside = there.map(tokio::runtime::Handle::enter);
            self.writers.push((site.data_center, Writer::start(site.address(0), options)));
        }
    }

    /// Ends the shops' writing; what they were told is checked at the end.
    pub async fn stop_writer(&mut self) {
        for (_, writer) in self.writers.drain(..) {
            self.reports.push(writer.stop().await);
        }
    }

    /// How many orders all shops together were told are committed.
    pub fn acknowledged(&self) -> u64 {
        self.writers.iter().map(|(_, writer)| writer.acknowledged()).sum()
    }

    /// The lab that the cluster stands in.
    pub fn lab(&mut self) -> &mut Lab {
        self.lab.as_mut().expect("this scenario is played in a lab")
    }

    /// Lets a fault befall a server.
    pub fn strike(&mut self, fault: Fault, server: &str) -> Outcome {
        Ok(fault.strike(self.lab.as_mut(), &mut self.cluster, server)?)
    }

    /// Undoes a fault.
    pub async fn end(&mut self, fault: Fault, server: &str) -> Outcome {
        Ok(fault.end(self.lab.as_mut(), &mut self.cluster, server).await?)
    }

    /// Ends the shop's writing and checks nothing of it.
    pub async fn forget_writes(&mut self) {
        self.stop_writer().await;
        // The place stays taken, so that no number is used twice.
        for report in &mut self.reports {
            report.acknowledged.clear();
        }
    }

    /// Waits until the question has an answer.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut question: impl AsyncFnMut(&Stage) -> Option<T>,
    ) -> Outcome<T> {
        let asking = async {
            loop {
                if let Some(answer) = question(self).await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let answer = tokio::time::timeout(limit, asking).await;
        Ok(answer.map_err(|_| format!("{what}: not within {limit:?}"))?)
    }

    /// Waits until the cluster's status is as wanted.
    pub async fn until_shop(&self, what: &str, wanted: impl Fn(&Shop) -> bool) -> Outcome<Shop> {
        let look = async |stage: &Stage| stage.watchers.shop().await.filter(&wanted);
        self.until(what, PATIENCE, look).await
    }

    /// Waits until everything serves in its role, and commits wait for acknowledgements if they should.
    pub async fn whole(&self) -> Outcome<Shop> {
        self.until_shop("everything serves", |shop| {
            let lossless = shop.view["durability"] == "lossless";
            shop.is_whole() && (shop.acks() > 0 || !lossless)
        })
        .await
    }

    /// The name of the primary.
    pub async fn primary(&self) -> Outcome<String> {
        let shop = self.until_shop("there is a primary", |shop| shop.primary().is_some()).await?;
        Ok(shop.primary().unwrap_or_default().to_owned())
    }

    /// The watcher that leads, by its place.
    pub async fn leader(&self) -> Outcome<usize> {
        let shop = self.until_shop("somebody leads", |shop| shop.leader.is_some()).await?;
        let place = Cluster::WATCHERS.iter().position(|id| Some(*id) == shop.leader.as_deref());
        Ok(place.ok_or("an unknown watcher leads")?)
    }

    pub fn server(&mut self, name: &str) -> &mut Server {
        self.cluster.server(name).expect("a declared server")
    }

    pub fn peek(&self, name: &str) -> &Server {
        self.cluster.servers.iter().find(|it| it.name() == name).expect("a declared server")
    }

    /// The servers other than this one.
    pub fn others(&self, than: &str) -> Vec<String> {
        let names = self.cluster.servers.iter().map(|it| it.name().to_owned());
        names.filter(|name| name != than).collect()
    }

    pub fn flavor(&self) -> DatabaseFlavor {
        self.cluster.servers[0].flavor()
    }

    pub fn is_mysql(&self) -> bool {
        self.flavor() == DatabaseFlavor::Mysql
    }

    /// Runs statements in one session with every privilege, writing no binary log.
    pub async fn locally(&self, server: &str, statements: &[&str]) -> Outcome {
        let mut session = self.peek(server).connect().await?;
        session.query_drop("SET SESSION sql_log_bin=0").await?;
        for statement in statements {
            session.query_drop(*statement).await?;
        }
        Ok(session.disconnect().await?)
    }

    /// Changes the monitor's account on one server alone, and ends the sessions it had.
    pub async fn change_monitor(&self, server: &str, change: &str) -> Outcome {
        let closed = self.is_mysql() && !self.peek(server).is_writable().await?;
        let mut statements = vec![change];
        if closed {
            statements.insert(0, "SET GLOBAL super_read_only=0");
            statements.push("SET GLOBAL super_read_only=1");
        }
        self.locally(server, &statements).await?;
        let sessions = format!(
            "SELECT GROUP_CONCAT(id) FROM information_schema.processlist WHERE user = '{}'",
            MONITOR.user
        );
        let ids: Option<Option<String>> = self.peek(server).query(&sessions).await?;
        for id in ids.flatten().unwrap_or_default().split(',').filter(|id| !id.is_empty()) {
            // A session that ended by itself is gone as well.
            let _ = self.peek(server).execute(&format!("KILL {id}")).await;
        }
        Ok(())
    }

    /// Waits until every shop has had further orders acknowledged.
    pub async fn writes_go_on(&self) -> Outcome {
        self.writes_go_on_outside("").await
    }

    /// Waits until every shop that is not in this data center has had further orders acknowledged.
    pub async fn writes_go_on_outside(&self, data_center: &str) -> Outcome {
        // What was under way at a fault may still be acknowledged for a moment.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let writers = self.writers.iter().filter(|(place, _)| *place != data_center);
        let seen: Vec<_> = writers.map(|(_, writer)| (writer, writer.acknowledged())).collect();
        check(!seen.is_empty(), || "nobody writes".to_owned())?;
        let more = async |_: &Stage| {
            seen.iter().all(|(writer, seen)| writer.acknowledged() >= seen + 20).then_some(())
        };
        self.until("writes go on", PATIENCE, more).await
    }

    /// Waits until every replica has applied what the primary holds now.
    pub async fn replicas_keep_up(&self) -> Outcome {
        let count = "SELECT COUNT(*) FROM shop.orders";
        let primary = self.primary().await?;
        let held: Option<u64> = self.peek(&primary).query(count).await?;
        for name in self.others(&primary) {
            self.peek(&name).wait_for(count, held.unwrap_or(0)).await?;
        }
        Ok(())
    }

    /// Waits until another server than this one is the primary and writes go on.
    pub async fn failed_over(&self, from: &str) -> Outcome<String> {
        self.failed_over_outside(from, "").await
    }

    /// The same, without looking at the shop in a data center.
    pub async fn failed_over_outside(&self, from: &str, data_center: &str) -> Outcome<String> {
        let moved = |shop: &Shop| shop.primary().is_some_and(|it| it != from);
        let shop = self.until_shop("another server is the primary", moved).await?;
        self.writes_go_on_outside(data_center).await?;
        Ok(shop.primary().unwrap_or_default().to_owned())
    }

    /// Starts a killed server again and waits until it follows, whatever became of its history; true
    /// when its data had to be replaced for that.
    pub async fn bring_back(&mut self, name: &str) -> Outcome<bool> {
        self.server(name).restart().await?;
        self.takes_no_writes(name).await?;
        let diverged = self.follows_again(name).await?;
        if !diverged {
            self.was_never_written_to(name).await?;
        }
        Ok(diverged)
    }

    /// Waits until a server that is back follows, whatever became of its history; true when its data
    /// had to be replaced for that.
    pub async fn follows_again(&mut self, name: &str) -> Outcome<bool> {
        let settled = |shop: &Shop| {
            let shut = shop.server(name)["writable"] == false && !shop.busy();
            shut && shop.health(name) == "healthy"
        };
        let look = async |stage: &Stage| stage.watchers.shop().await.filter(&settled);
        self.until(&format!("{name} follows again"), COPYING, look).await?;
        self.whole().await?;
        self.takes_no_writes(name).await?;
        let about = format!("{name} holds a copy");
        let events = self.watchers.events().await;
        Ok(events.iter().any(|(_, kind, text)| kind == "step_done" && text.contains(&about)))
    }

    /// Waits until what a server alone held was written down; what the newest such event says.
    pub async fn until_exported(&self, name: &str, after: u64) -> Outcome<String> {
        let about = format!("{name}: ");
        let told = async |stage: &Stage| {
            let events = stage.watchers.events().await;
            let found = events.into_iter().rev().find(|(seq, kind, text)| {
                *seq > after && kind == "exported" && text.starts_with(&about)
            });
            found.map(|(_, _, text)| text)
        };
        self.until(&format!("what {name} alone held is written down"), PATIENCE, told).await
    }

    /// Empties a server, as a person would whose data is of no use any more; it fetches everything
    /// from the primary then.
    pub async fn rebuild(&mut self, name: &str) -> Outcome {
        Ok(self.server(name).wipe_and_recreate().await?)
    }

    pub async fn takes_no_writes(&self, name: &str) -> Outcome {
        if self.peek(name).is_writable().await? {
            return Err(format!("{name} came back and takes writes").into());
        }
        Ok(())
    }

    /// No session of the shop was led to this server since it started.
    pub async fn was_never_written_to(&self, name: &str) -> Outcome {
        let counted = "SELECT CAST(COALESCE(SUM(TOTAL_CONNECTIONS), 0) AS UNSIGNED) \
                       FROM performance_schema.users WHERE USER = 'shop'";
        let count: Option<u64> = self.peek(name).query(counted).await?;
        if count != Some(0) {
            return Err(format!("{name} was led {count:?} sessions after it came back").into());
        }
        Ok(())
    }

    /// Ends the shop and checks what must hold whatever happened: one server takes writes, all that
    /// run follow it and hold the same, and every acknowledged order is there.
    pub async fn judge(&mut self) -> Outcome {
        self.stop_writer().await;
        let shop = self.until_shop("nothing is under way", |it| !it.busy()).await?;
        let primary = shop.primary().ok_or("there is no primary")?.to_owned();
        let writable = self.cluster.writable().await;
        if writable != [primary.clone()] {
            return Err(format!("{primary} is the primary and {writable:?} take writes").into());
        }
        let mut running = Vec::new();
        for server in &mut self.cluster.servers {
            if server.is_running() {
                running.push(server.name().to_owned());
            }
        }
        self.held_by(&primary).await?;
        for name in running.iter().filter(|name| **name != primary) {
            let follows = |shop: &Shop| shop.server(name)["follows"] == primary.as_str();
            self.until_shop(&format!("{name} follows {primary}"), follows).await?;
            // What was under way when the shop ended may still be committed, here and there.
            let same = async |stage: &Stage| {
                let held = stage.held_by(name).await.ok()?;
                (held == stage.held_by(&primary).await.ok()?).then_some(())
            };
            self.until(&format!("{name} holds what {primary} holds"), PATIENCE, same).await?;
        }
        let told: u64 = self.reports.iter().map(WriterReport::count).sum();
        if told == 0 {
            return Err("no order was ever acknowledged, so this proves nothing".into());
        }
        Ok(())
    }

    /// How many acknowledged orders of writers that ended a server lacks.
    pub async fn missing_on(&self, server: &str) -> Outcome<u64> {
        let mut count = 0;
        for report in &self.reports {
            count += report.missing_rows(self.peek(server).address()).await?.len() as u64;
        }
        Ok(count)
    }

    /// How many orders a server holds of each writer; an error when an acknowledged one is missing.
    async fn held_by(&self, server: &str) -> Outcome<Vec<u64>> {
        let mut all = Vec::new();
        for report in &self.reports {
            let held = report.compare(self.peek(server).address()).await?;
            if !held.missing.is_empty() {
                let missing = &held.missing[..held.missing.len().min(10)];
                return Err(format!("{server} lacks acknowledged orders: {missing:?} ...").into());
            }
            all.push(held.present);
        }
        Ok(all)
    }

    /// Runs a command of `regent` against the watchers.
    pub async fn regent(&self, arguments: &[&str]) -> Outcome<Said> {
        run(arguments, &self.cluster.urls().join(",")).await
    }

    fn logs(&self) -> Vec<std::path::PathBuf> {
        let sites = self.cluster.sites();
        let nodes = sites.watchers.iter().chain(&sites.proxies);
        nodes.map(|site| self.cluster.log_of(site.name)).collect()
    }

    fn no_secret_is_told(&self) -> Outcome {
        for log in self.logs() {
            holds_no_secret(&log.display().to_string(), &read(&log))?;
        }
        Ok(())
    }

    /// The cluster's events, its status and the end of each log.
    async fn tell(&self) -> String {
        let mut text = String::from("\n== events\n");
        for (seq, kind, event) in self.watchers.events().await {
            text += &format!("{seq} {kind}: {event}\n");
        }
        let status = self.watchers.get("/v1/status").await.unwrap_or_default();
        text += &format!("== status\n{status}\n");
        for log in self.logs() {
            text += &format!("== {}\n{}\n", log.display(), tail(&log, 15));
        }
        text
    }
}

/// An error when a text holds a password.
pub fn holds_no_secret(place: &str, text: &str) -> Outcome {
    for account in [MONITOR, REPLICATION] {
        if text.contains(account.password) {
            return Err(format!("{place} tells the password of {}", account.user).into());
        }
    }
    Ok(())
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Whether something that tests need is there; a failed test when it must be.
#[expect(clippy::print_stderr, reason = "whoever runs the tests should know what was left out")]
pub fn is_there<T>(found: Result<T, impl std::fmt::Display>) -> bool {
    match found {
        Ok(_) => true,
        Err(error) => {
            let required = std::env::var_os("REGENT_REQUIRE_SERVERS").is_some_and(|it| it == "1");
            assert!(!required, "{error}");
            eprintln!("skipped: {error}");
            false
        }
    }
}

/// One cluster at a time on this machine, whichever runner starts the tests.
fn take_turn() -> File {
    let user = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("regent-tests-{user}.lock"));
    let file = File::create(path).expect("the temporary directory takes files");
    file.lock().expect("locks work on the temporary directory");
    file
}

/// An error with this text unless the condition holds.
pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}
