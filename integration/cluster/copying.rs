//! A watcher may die while it has a server's data replaced.

use crate::asking::{Said, Shop, run};
use crate::stage::{Outcome, PATIENCE, Stage, check};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use regent::demo::cluster::Cluster;
use regent::demo::servers::DatabaseFlavor;
use tokio::task::JoinHandle;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn the_leader_dies_while_it_copies_on_mysql() {
    crate::stage::play(DatabaseFlavor::Mysql, async |stage| the_leader_dies(stage).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/test --all"]
async fn the_leader_dies_while_it_copies_on_mariadb() {
    crate::stage::play(DatabaseFlavor::Mariadb, async |stage| the_leader_dies(stage).await).await;
}

/// The next leader goes on with the copy, or makes it again; nobody counts on the half of it.
async fn the_leader_dies(stage: &mut Stage) -> Outcome {
    stage.begin().await?;
    let primary = stage.primary().await?;
    let [replica, donor] = stage.others(&primary).try_into().map_err(|_| "three servers")?;
    let brake = Brake::put_on(stage, &primary, &replica, &donor).await?;
    let ordered = order_a_rebuild(stage, &replica, &donor);
    brake.holds(stage).await?;
    let leader = Cluster::WATCHERS[stage.leader().await?];
    stage.cluster.kill_node(leader);
    let other = |shop: &Shop| shop.leader.as_deref().is_some_and(|it| it != leader);
    stage.until_shop("another watcher leads", other).await?;
    brake.holds(stage).await?;
    let said = stage.regent(&["switchover", "shop", "--to", &replica, "--yes"]).await?;
    check(said.code == 1 && said.err.contains("being replaced"), || format!("{said:?}"))?;
    stage.writes_go_on().await?;
    brake.release().await?;
    // Whom it asked may be the watcher that died.
    let _ = ordered.await?;
    stage.cluster.start_node(leader)?;
    stage.whole().await?;
    check(stage.primary().await? == primary, || format!("{primary} was replaced"))?;
    let about = format!("{replica} holds a copy");
    let events = stage.watchers.events().await;
    let copies =
        events.iter().filter(|(_, kind, text)| kind == "step_done" && text.contains(&about));
    check(copies.count() == 1, || format!("{replica} was copied to more than once"))?;
    stage.writes_go_on().await?;
    stage.judge().await
}

/// Orders a replica's data to be replaced by another one's; ends with the command.
pub fn order_a_rebuild(stage: &Stage, replica: &str, donor: &str) -> JoinHandle<Outcome<Said>> {
    let urls = stage.cluster.urls().join(",");
    let order = ["rejoin", "shop", replica, "--rebuild", "--from", donor, "--yes"];
    let order = order.map(str::to_owned);
    tokio::spawn(async move {
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        run(&order, &urls).await
    })
}

/// What makes a copy take as long as it is to take.
pub struct Brake {
    /// MariaDB: a table of the donor that its dump cannot read meanwhile.
    locked: Option<Conn>,
    donor: String,
    replica: String,
}

impl Brake {
    pub async fn put_on(
        stage: &Stage,
        primary: &str,
        replica: &str,
        donor: &str,
    ) -> Outcome<Brake> {
        let locked = match stage.is_mysql() {
            true => {
                slow_down(stage, replica).await?;
                slow_down(stage, donor).await?;
                None
            }
            false => Some(lock_a_table(stage, primary, donor).await?),
        };
        Ok(Brake { locked, donor: donor.to_owned(), replica: replica.to_owned() })
    }

    /// Waits until a part has been copied and the rest has not.
    pub async fn holds(&self, stage: &Stage) -> Outcome {
        let (at, question) = match self.locked {
            None => (
                &self.replica,
                "SELECT COUNT(*) FROM performance_schema.clone_progress \
                 WHERE STAGE = 'FILE COPY' AND STATE = 'In Progress'",
            ),
            Some(_) => (
                &self.donor,
                "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                 WHERE STATE = 'Waiting for table metadata lock'",
            ),
        };
        let held = async |stage: &Stage| {
            let count: Option<u64> = stage.peek(at).query(question).await.ok()?;
            (count > Some(0)).then_some(())
        };
        stage.until("a part is copied", PATIENCE, held).await
    }

    pub async fn release(self) -> Outcome {
        if let Some(locked) = self.locked {
            locked.disconnect().await?;
        }
        Ok(())
    }
}

/// Lets MySQL copy so slowly that a small server takes several seconds.
async fn slow_down(stage: &Stage, name: &str) -> Outcome {
    let statements = [
        "SET GLOBAL super_read_only = 0",
        "INSTALL PLUGIN clone SONAME 'mysql_clone.so'",
        "SET GLOBAL clone_max_data_bandwidth = 6",
        "SET GLOBAL super_read_only = 1",
    ];
    stage.locally(name, &statements).await
}

/// Locks the last table that a dump of the donor reads of the shop.
async fn lock_a_table(stage: &Stage, primary: &str, donor: &str) -> Outcome<Conn> {
    let mut session = stage.peek(primary).connect().await?;
    session.query_drop("CREATE TABLE shop.zz (id INT PRIMARY KEY)").await?;
    session.disconnect().await?;
    let there = async |stage: &Stage| {
        let mut session = stage.peek(donor).connect().await.ok()?;
        session.query_drop("LOCK TABLES shop.zz WRITE").await.ok()?;
        Some(session)
    };
    stage.until("a table is locked", PATIENCE, there).await
}
