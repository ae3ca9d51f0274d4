//! An archiver in a process of its own, and what it has stored so far.

use crate::stage::{Ended, Mariadb, Mysql, Stage, ended};
use regent::decision::backup::archive::segment::Segment;
use regent::decision::gtid::Gtids;
use regent::decision::topology::Flavor;
use regent::demo::servers::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Small segments, soon stored.
pub const SOON: &str = "      binlogs: { segment_size: 1MiB, segment_age: 1s }";

pub struct Archiver(Option<Child>);

impl Archiver {
    pub fn start(stage: &Stage) -> Archiver {
        let mut command = stage.command(&["archive", "shop", "--json"]);
        Archiver(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Ends it in order.
    pub async fn stop(mut self) -> Ended {
        let child = self.0.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let ended = ended(&waited.await.unwrap());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All segments that are stored, the oldest first.
pub fn segments(stage: &Stage) -> Vec<Segment> {
    let folder = stage.bucket.file("regent/shop/binlogs/manifests");
    let mut names: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    names.retain(|entry| {
        entry.file_name().to_string_lossy().ends_with("Z.json") || {
            let name = entry.file_name().to_string_lossy().into_owned();
            ["-start.json", "-fork.json", "-gap.json"].iter().any(|end| name.ends_with(end))
        }
    });
    names.sort_by_key(std::fs::DirEntry::file_name);
    let read =
        |entry: &std::fs::DirEntry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok();
    names.iter().filter_map(read).collect()
}

/// Everything that a server has committed.
pub async fn executed(server: &Server) -> Gtids {
    let (flavor, question) = match server.flavor() {
        Mysql => (Flavor::MySql, "SELECT @@GLOBAL.gtid_executed"),
        Mariadb => (Flavor::MariaDb, "SELECT @@GLOBAL.gtid_binlog_pos"),
    };
    let text: Option<String> = server.query(question).await.unwrap();
    Gtids::parse(flavor, &text.unwrap_or_default()).unwrap()
}

/// Waits until all that the server has committed is archived.
pub async fn until_archived(stage: &Stage, server: &Server) {
    let wanted = executed(server).await;
    for _ in 0..600 {
        if segments(stage).last().is_some_and(|last| last.to.contains(&wanted)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{wanted} was not archived: {:?}", segments(stage).last().map(|it| it.to.clone()));
}
