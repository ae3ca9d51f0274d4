//! An archiver in a process of its own, and what it has stored so far.

use crate::stage::{Ended, Mariadb, Mysql, Stage, ended};
use regent::decision::backup::archive::names::SegmentName;
use regent::decision::backup::archive::segment::Segment;
use regent::decision::gtid::Gtids;
use regent::decision::topology::Flavor;
use regent::demo::servers::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Small segments, soon stored.
pub const SOON: &str = "      binlogs: { segment_size: 1MiB, segment_age: 1s }";

pub struct Archiver(Option<Child>);

impl Archiver {
    pub fn start(stage: &Stage) -> Archiver {
        Archiver::run(stage.command(&["archive", "shop", "--json"]))
    }

    pub fn run(mut command: Command) -> Archiver {
        Archiver(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// How it ends by itself.
    pub async fn end(mut self) -> Ended {
        let child = self.0.take().unwrap();
        let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        ended(&waited.await.unwrap())
    }

    /// Whether it goes on.
    pub fn is_running(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Ends it in order.
    pub async fn stop(self) -> Ended {
        let child = self.0.as_ref().unwrap();
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        let ended = self.end().await;
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
    segments_in(&stage.bucket.file("regent/shop/binlogs"))
}

/// All segments of the archive in that directory, the oldest first.
pub fn segments_in(archive: &Path) -> Vec<Segment> {
    let folder = archive.join("manifests");
    let mut names: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    names.retain(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".json").is_some_and(|name| name.parse::<SegmentName>().is_ok())
    });
    names.sort_by_key(std::fs::DirEntry::file_name);
    let read =
        |entry: &std::fs::DirEntry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok();
    names.iter().filter_map(read).collect()
}

/// Each segment goes on where the one before it ends; nothing is missing, and nothing is there twice.
pub fn assert_whole(all: &[Segment]) {
    for (earlier, later) in all.iter().zip(&all[1..]) {
        assert_eq!(earlier.name.number + 1, later.name.number);
        assert_eq!(earlier.to, later.from, "{} and {}", earlier.name, later.name);
    }
    for segment in all {
        let beyond = segment.to.count_beyond(&segment.from);
        assert_eq!(segment.transactions, beyond, "{}", segment.name);
    }
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
