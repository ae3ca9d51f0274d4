//! The store on real files: kills, damage, mix-ups.

use regent::runtime::disk::{Disk, DiskError, DiskThread};
use regent::watcher::{Record, Stored, StoredSnapshot};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn record(index: u64) -> Record {
    let size = if index.is_multiple_of(17) { 30_000 } else { 200 };
    Record {
        hard_state: Some(index.to_be_bytes().to_vec()),
        entries: vec![(index, vec![index as u8; size])],
        ..Record::default()
    }
}

fn open(dir: &Path) -> Result<(Disk, Stored), DiskError> {
    Disk::open(dir, &"w1".into())
}

fn filled(dir: &Path, entries: u64) {
    let (mut disk, stored) = open(dir).unwrap();
    assert_eq!(stored, Stored::default());
    (1..=entries).for_each(|index| disk.write(&record(index)).unwrap());
    let snapshot = StoredSnapshot { index: 5, encoded: vec![7; 100_000] };
    let compaction = Record { snapshot: Some(snapshot), compact_to: Some(5), ..Record::default() };
    disk.write(&compaction).unwrap();
}

#[test]
fn what_was_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 40);
    let (mut disk, stored) = open(dir.path()).unwrap();
    assert_eq!(stored.snapshot.unwrap().encoded, vec![7; 100_000]);
    assert_eq!(stored.hard_state, Some(40u64.to_be_bytes().to_vec()));
    let indexes: Vec<u64> = stored.entries.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, (6..=40).collect::<Vec<_>>());
    assert!(stored.entries.iter().all(|(i, bytes)| bytes == &record(*i).entries[0].1));
    disk.write(&Record { entries: vec![(20, vec![1])], ..Record::default() }).unwrap();
    drop(disk);
    let (_disk, stored) = open(dir.path()).unwrap();
    assert_eq!(stored.entries.last(), Some(&(20, vec![1])));
    assert!(matches!(open(dir.path()), Err(DiskError::InUse { .. })));
}

#[test]
fn another_watchers_store_and_missing_parts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10);
    let other = Disk::open(dir.path(), &"w2".into());
    assert!(matches!(other, Err(DiskError::OtherWatcher { .. })), "{other:?}");
    for part in ["watcher.json", "acknowledged", "raft", "snapshots/00000000000000000005.snapshot"]
    {
        let (from, to) = (dir.path().join(part), dir.path().join("aside"));
        std::fs::rename(&from, &to).unwrap();
        let opened = open(dir.path());
        assert!(matches!(opened, Err(DiskError::Missing { .. })), "{part}: {opened:?}");
        std::fs::rename(&to, &from).unwrap();
    }
    open(dir.path()).unwrap();
}

#[test]
fn damage_is_named_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 40);
    let (_, whole) = open(dir.path()).unwrap();
    let parts = [
        "watcher.json",
        "acknowledged",
        "raft/db",
        "raft/conf",
        "snapshots/00000000000000000005.snapshot",
    ];
    let mut named = 0;
    for part in parts {
        let path = dir.path().join(part);
        let before = std::fs::read(&path).unwrap();
        for cut in 0..24usize {
            // sled writes on opening, so each round starts from a copy of all of it.
            let copy = tempfile::tempdir().unwrap();
            let status = Command::new("cp")
                .arg("-r")
                .arg(format!("{}/.", dir.path().display()))
                .arg(copy.path())
                .status();
            assert!(status.unwrap().success());
            let mut bytes = before.clone();
            let at = before.len() * cut / 24;
            match cut % 2 {
                0 => bytes.truncate(at),
                _ => bytes[at] ^= 0x41,
            }
            std::fs::write(copy.path().join(part), bytes).unwrap();
            match open(copy.path()) {
                Ok((_, stored)) => assert_eq!(stored, whole, "{part} at {at}"),
                Err(_) => named += 1,
            }
        }
    }
    assert!(named > 20, "only {named} of the damages were noticed");
}

/// A file system of that size in megabytes, for root; gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(megabytes: u32) -> Option<Small> {
        let dir = tempfile::tempdir().unwrap();
        let mount = format!("mount -t tmpfs -o size={megabytes}m small");
        run(&format!("{mount} {}", dir.path().display())).then_some(Small(dir))
    }

    fn grow(&self, megabytes: u32) {
        let grown = format!("mount -o remount,size={megabytes}m {}", self.0.path().display());
        assert!(run(&grown), "it did not grow");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(&format!("umount -l {}", self.0.path().display()));
    }
}

fn run(command: &str) -> bool {
    let mut words = command.split(' ');
    let started = Command::new(words.next().unwrap()).args(words).stderr(Stdio::null()).status();
    started.is_ok_and(|status| status.success())
}

/// A store that finds no room says so, and loses nothing that it acknowledged.
#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let Some(small) = Small::mount(6) else {
        // Mounting takes root.
        return;
    };
    let dir = small.0.path().join("store");
    let (mut disk, _) = open(&dir).unwrap();
    let mut acknowledged = 0;
    let full = loop {
        let next = acknowledged + 1;
        match disk.write(&record(next)) {
            Ok(()) => acknowledged = next,
            Err(error) => break error,
        }
        assert!(next < 100_000, "it never filled");
    };
    assert!(acknowledged > 10, "only {acknowledged}: {full}");
    let said = full.to_string();
    assert!(said.contains(&dir.display().to_string()), "it names no place: {said}");
    drop(disk);
    small.grow(64);
    let (mut disk, stored) = open(&dir).unwrap();
    let kept = stored.entries.iter().map(|(index, _)| *index).max().unwrap_or(0);
    assert!(kept >= acknowledged, "{acknowledged} were acknowledged, {kept} are there");
    disk.write(&record(kept + 1)).unwrap();
}

#[test]
fn the_thread_acknowledges_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _) = open(dir.path()).unwrap();
    let (heard, hears) = std::sync::mpsc::channel();
    let thread = DiskThread::start(disk, move |done| heard.send(done.unwrap()).unwrap()).unwrap();
    for index in 1..=200 {
        assert_eq!(thread.write(index, record(index)).unwrap(), None);
    }
    drop(thread);
    let tickets: Vec<u64> = hears.iter().collect();
    assert!(tickets.is_sorted() && tickets.last() == Some(&200), "{tickets:?}");
    assert_eq!(open(dir.path()).unwrap().1.entries.len(), 200);
}

const CHILD: &str = "REGENT_TEST_STORE";

/// Not a test by itself: the process that `an_acknowledged_record_survives_a_kill` kills.
#[test]
fn writes_until_killed() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let (mut disk, stored) = open(Path::new(&dir)).unwrap();
    let mut index = stored.entries.last().map_or(1, |(index, _)| index + 1);
    loop {
        disk.write(&record(index)).unwrap();
        std::io::Write::write_all(&mut std::io::stdout(), format!("ack {index}\n").as_bytes())
            .unwrap();
        index += 1;
    }
}

#[test]
fn an_acknowledged_record_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0u64;
    for round in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::writes_until_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        std::thread::sleep(Duration::from_millis(90 + round * 13));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            // The test runner's own words may stand before the first one on its line.
            if let Some((_, index)) = line.rsplit_once("ack ") {
                last = last.max(index.parse().unwrap_or(0));
            }
        }
        let (_disk, stored) = open(dir.path()).unwrap();
        let found = stored.entries.last().map_or(0, |(index, _)| *index);
        assert!(found >= last, "round {round}: {found} found of {last} acknowledged");
        assert!(stored.entries.iter().map(|(i, _)| *i).eq(1..=found));
        assert!(stored.entries.iter().all(|(i, bytes)| bytes == &record(*i).entries[0].1));
    }
    assert!(last > 20, "only {last} records were written");
}
