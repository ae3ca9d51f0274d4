//! A server whose storage has no room left.

use crate::cluster::{Cluster, Mariadb, Mysql, credentials};
use mysql_async::prelude::Queryable;
use regent::decision::report::{Sight, Trouble};
use regent::decision::topology::{Epoch, WatcherName};
use regent::demo::servers::{DatabaseFlavor, ServerOptions};
use regent::runtime::mysql::canary::Canary;
use regent::watcher::CanaryResult;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A file system of its own, unmounted with the test.
struct Small(std::path::PathBuf);

impl Small {
    /// Over the directory; none where this user may not mount.
    fn over(place: &Path) -> Option<Small> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=300m", "tmpfs"]).arg(place);
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: this user may not mount a file system");
        }
        mounted.then(|| Small(place.to_owned()))
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![7; 1 << 20];
        while filler.write_all(&block).is_ok() {}
        let rest = [7; 512];
        while filler.write_all(&rest).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Clients' writes fail or wait for room; watchers are told that there is none.
async fn tells_that_no_room_is_left(flavor: DatabaseFlavor) {
    let place = tempfile::tempdir().unwrap();
    let Some(small) = Small::over(place.path()) else {
        return;
    };
    let options = ServerOptions::default();
    let Some(cluster) = Cluster::start_in(place, flavor, 1, options).await else {
        return;
    };
    cluster.once(0, cluster.step("writable", 0)).await;
    cluster.write("CREATE DATABASE shop").await;
    cluster.write("CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, t LONGTEXT)").await;
    let mut canary = Canary::new(cluster.spec(0), credentials().monitor);
    let watcher = WatcherName::from("paris");
    assert_eq!(canary.write(&watcher, Epoch(1)).await, CanaryResult::Written);
    assert!(matches!(cluster.prober(0).probe().await, Sight::Alive(_)));
    small.fill();
    let address = cluster.servers[0].connect().await.unwrap();
    let client = tokio::spawn(async move {
        let mut conn = address;
        for _ in 0..20 {
            let row = "INSERT INTO shop.orders (t) VALUES (REPEAT('x', 1000000))";
            // It fails, or waits for room.
            let _ = conn.query_drop(row).await;
        }
    });
    // A session that lasts may go on to be answered; whoever comes is told.
    let mut newcomer = cluster.prober(0);
    let mut sight = newcomer.probe().await;
    for _ in 0..100 {
        if !matches!(sight, Sight::Alive(_)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        newcomer = cluster.prober(0);
        sight = newcomer.probe().await;
    }
    // MariaDB may end itself when it cannot write its log.
    if flavor == Mariadb && sight == Sight::Refused {
        return;
    }
    assert_eq!(sight, Sight::Useless(Trouble::NoRoom));
    client.abort();
    // And it is well again when there is room.
    small.make_room();
    for _ in 0..40 {
        let sight = cluster.prober(0).probe().await;
        let written = canary.write(&watcher, Epoch(1)).await;
        if matches!(sight, Sight::Alive(_)) && written == CanaryResult::Written {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("it does not recover");
}

/// A commit that waits for an acknowledgement holds up other commits, but no canary.
async fn waiting_commits_are_no_stall(flavor: DatabaseFlavor) {
    let Some(cluster) = Cluster::lossless_pair(flavor).await else {
        return;
    };
    let mut canary = Canary::new(cluster.spec(0), credentials().monitor);
    let watcher = WatcherName::from("paris");
    assert_eq!(canary.write(&watcher, Epoch(1)).await, CanaryResult::Written);
    cluster.once(1, cluster.step("receiver_stopped", 1)).await;
    let mut waiting = cluster.session(0).await;
    let commit = tokio::spawn(async move { waiting.query_drop("COMMIT").await });
    cluster.until(0, "waiting", |it| it.semi_sync.waiting >= 1).await;
    for _ in 0..3 {
        assert_eq!(canary.write(&watcher, Epoch(1)).await, CanaryResult::Written);
    }
    assert!(!commit.is_finished());
    commit.abort();
}

both! { waiting_commits_are_no_stall }

#[tokio::test]
async fn mariadb_tells_that_no_room_is_left() {
    tells_that_no_room_is_left(Mariadb).await;
}

/// What this product needs room for when somebody comes is not the same each time.
#[tokio::test]
#[ignore = "scripts/test --all"]
async fn mysql_tells_that_no_room_is_left() {
    tells_that_no_room_is_left(Mysql).await;
}
