//! A few servers of one flavour, and ways to act on them.

use mysql_async::prelude::Queryable;
use regent::clock::{Clock, Moment};
use regent::config::secret::Secret;
use regent::config::{Account, Credentials};
use regent::decision::plan::{Facts, Outcome, Step};
use regent::decision::report::{Sight, Status};
use regent::decision::topology::{Endpoint, Epoch, ServerName, ServerSpec, Timing};
use regent::demo::ports::free_ports;
use regent::demo::servers::accounts::{MONITOR, REPLICATION};
use regent::demo::servers::{DatabaseFlavor, Installation, Server, ServerOptions, ServerSet};
use regent::runtime::mysql::connect::connect;
use regent::runtime::mysql::distance::Distance;
use regent::runtime::mysql::probe::Prober;
use regent::runtime::steps::{Access, Exports, Link, Programs, Renewal, perform};
use regent::runtime::withdrawal::Withdrawal;
use std::path::PathBuf;
use std::time::Duration;

pub use DatabaseFlavor::{Mariadb, Mysql};

pub struct Cluster {
    pub servers: Vec<Server>,
    pub clock: Clock,
    pub flavor: DatabaseFlavor,
    links: Vec<Link>,
    programs: PathBuf,
    place: tempfile::TempDir,
}

impl Cluster {
    /// Starts empty, read-only servers; none where the flavour is not installed.
    pub async fn start(flavor: DatabaseFlavor, count: usize) -> Option<Cluster> {
        let place = tempfile::tempdir().unwrap();
        Cluster::start_in(place, flavor, count, ServerOptions::default()).await
    }

    /// As [`Cluster::start`], in that directory and with these options.
    pub async fn start_in(
        place: tempfile::TempDir,
        flavor: DatabaseFlavor,
        count: usize,
        options: ServerOptions,
    ) -> Option<Cluster> {
        let installation = match Installation::find(flavor) {
            Ok(installation) => installation,
            Err(error) => {
                let required =
                    std::env::var_os("REGENT_REQUIRE_SERVERS").is_some_and(|it| it == "1");
                assert!(!required, "{error}");
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let programs = installation.program("");
        let set = ServerSet::new(place.path(), installation).unwrap();
        let mut servers = Vec::new();
        for (number, port) in free_ports(count).into_iter().enumerate() {
            let name = format!("db{}", number + 1);
            servers.push(set.start(&name, port, options.clone()).await.unwrap());
        }
        let links = servers.iter().map(|_| Link::default()).collect();
        Some(Cluster { servers, clock: Clock::start(), flavor, links, programs, place })
    }

    /// The first server is the primary, the others follow it.
    pub async fn replicating(flavor: DatabaseFlavor, count: usize) -> Option<Cluster> {
        let cluster = Cluster::start(flavor, count).await?;
        cluster.done(0, cluster.step("writable", 0)).await;
        cluster.write("CREATE DATABASE shop").await;
        cluster.write("CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT)").await;
        for replica in 1..count {
            cluster.done(replica, cluster.following(replica, 0)).await;
        }
        let all = cluster.status(0).await.executed;
        for replica in 1..count {
            cluster.until(replica, "caught up", |it| it.executed.contains(&all)).await;
        }
        Some(cluster)
    }

    /// A primary whose commits wait for its one replica to acknowledge them.
    pub async fn lossless_pair(flavor: DatabaseFlavor) -> Option<Cluster> {
        let cluster = Cluster::replicating(flavor, 2).await?;
        // So that the replica's connection is asked for acknowledgements, whatever it connected to.
        cluster.done(0, Step::CommitsWait { server: cluster.name(0), acks: 0 }).await;
        cluster.done(1, Step::Acknowledges { server: cluster.name(1), on: true }).await;
        cluster.done(0, Step::CommitsWait { server: cluster.name(0), acks: 1 }).await;
        cluster.until(0, "a client", |it| it.semi_sync.source && it.semi_sync.clients == 1).await;
        Some(cluster)
    }

    pub async fn write(&self, statement: &str) {
        self.servers[0].execute(statement).await.unwrap();
    }

    pub async fn insert(&self, at: usize) {
        self.servers[at].execute("INSERT INTO shop.orders VALUES ()").await.unwrap();
    }

    pub fn name(&self, at: usize) -> ServerName {
        ServerName::from(self.servers[at].name())
    }

    pub fn address(&self, at: usize) -> Endpoint {
        Endpoint { host: "127.0.0.1".to_owned(), port: self.servers[at].port() }
    }

    pub fn following(&self, at: usize, source: usize) -> Step {
        Step::Following {
            server: self.name(at),
            source: self.name(source),
            address: self.address(source),
        }
    }

    /// A step without parameters.
    pub fn step(&self, kind: &str, at: usize) -> Step {
        let server = self.name(at);
        match kind {
            "read_only" => Step::ReadOnly { server },
            "receiver_stopped" => Step::ReceiverStopped { server },
            "writable" => Step::Writable { server, acks: 0 },
            "detached" => Step::Detached { server },
            other => panic!("no step {other}"),
        }
    }

    /// The server as a configuration would declare it.
    pub fn spec(&self, at: usize) -> ServerSpec {
        ServerSpec::new(self.name(at), self.address(at), "paris".into())
    }

    pub fn access(&self, at: usize) -> Access {
        Access {
            server: self.spec(at),
            cluster: "shop".into(),
            credentials: credentials(),
            timing: Timing::default(),
            clock: self.clock,
            clients_cut: false,
            distance: Distance::default(),
            renewal: Renewal::default(),
            withdrawal: Withdrawal::default(),
            link: self.links[at].clone(),
            exports: Exports { watcher: "w1".into(), directory: self.place.path().join("exports") },
            programs: Programs(vec![self.programs.clone()]),
            progress: None,
        }
    }

    /// Performs a step and prints how long it took.
    pub async fn perform(&self, at: usize, step: Step) -> Outcome {
        let permit = self.clock.now().moment + Duration::from_secs(60);
        let before = self.clock.now().moment;
        let outcome = perform(&step, Epoch(1), &self.access(at), permit).await;
        let took = self.clock.now().moment.since(before);
        eprintln!("{} {}: {:.1} ms", self.flavor, step.kind(), took.as_secs_f64() * 1e3);
        outcome
    }

    /// As [`Cluster::perform`], long after the permit ran out.
    pub async fn perform_late(&self, at: usize, step: Step) -> Outcome {
        perform(&step, Epoch(1), &self.access(at), Moment::ZERO).await
    }

    /// Performs a step that must succeed, three times: doing it again is harmless.
    pub async fn done(&self, at: usize, step: Step) -> Facts {
        for _ in 0..2 {
            self.once(at, step.clone()).await;
        }
        self.once(at, step).await
    }

    /// Performs a step that must succeed.
    pub async fn once(&self, at: usize, step: Step) -> Facts {
        match self.perform(at, step.clone()).await {
            Outcome::Done(facts) => facts,
            outcome => panic!("{step}: {outcome:?}"),
        }
    }

    pub fn prober(&self, at: usize) -> Prober {
        Prober::new(&self.spec(at), credentials().monitor, Timing::default())
    }

    pub async fn status(&self, at: usize) -> Status {
        match self.prober(at).probe().await {
            Sight::Alive(status) => *status,
            sight => panic!("{sight:?}"),
        }
    }

    /// Waits until a server's status is as wished.
    pub async fn until(&self, at: usize, what: &str, wished: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        for _ in 0..200 {
            let status = self.status(at).await;
            if wished(&status) {
                return status;
            }
            last = Some(status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}: {last:?}");
    }

    pub async fn rows(&self, at: usize) -> u64 {
        self.servers[at].query("SELECT COUNT(*) FROM shop.orders").await.unwrap().unwrap()
    }

    /// A session of the account that watchers use.
    pub async fn monitor(&self, at: usize) -> mysql_async::Conn {
        let account = credentials().monitor;
        connect(&self.address(at), &account, Duration::from_secs(5), &Distance::default())
            .await
            .unwrap()
    }

    /// Keeps a session open that has begun a transaction.
    pub async fn session(&self, at: usize) -> mysql_async::Conn {
        let mut conn = self.servers[at].connect().await.unwrap();
        conn.query_drop("BEGIN").await.unwrap();
        conn.query_drop("INSERT INTO shop.orders VALUES ()").await.unwrap();
        conn
    }
}

pub fn credentials() -> Credentials {
    let account = |of: regent::demo::servers::accounts::Account| Account {
        user: of.user.to_owned(),
        password: Secret::new(of.password.to_owned()),
    };
    Credentials { monitor: account(MONITOR), replication: account(REPLICATION) }
}
