//! Decisions about backups: schedules, sources, runs and retention.
//!
//! Cases are as elsewhere: what is given, `---`, what is decided; written anew by
//! `REGENT_REWRITE_CASES=1 cargo test --test decisions`.

mod retention;
mod runs;
mod schedules;
mod sources;

use jiff::tz::TimeZone;
use regent::clock::WallTime;
use regent::decision::backup::names::BackupId;
use std::path::Path;

const LINE: &str = "---\n";

/// Compares every case of a folder with what is decided, or writes that down.
fn check(folder: &str, least: usize, decide: impl Fn(&str) -> String) {
    let rewrite = std::env::var_os("REGENT_REWRITE_CASES").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "case"));
    files.sort();
    assert!(files.len() >= least, "only {} cases in {}", files.len(), folder.display());
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (given, expected) = text.split_once(LINE).unwrap_or((&text, ""));
        let decided = decide(given);
        if decided != expected && rewrite {
            std::fs::write(&file, format!("{given}{LINE}{decided}")).unwrap();
        } else if decided != expected {
            wrong.push(format!("{}: decided\n{decided}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A backup's name.
fn id(name: &str) -> BackupId {
    BackupId::parse(name).unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// A time with its offset, as `2026-03-29T03:00:00+02:00`.
fn wall(text: &str) -> WallTime {
    let stamp: jiff::Timestamp = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    WallTime(u64::try_from(stamp.as_millisecond()).unwrap())
}

/// The same as the clocks of a zone show it.
fn shown(time: WallTime, zone: &TimeZone) -> String {
    let stamp = jiff::Timestamp::from_millisecond(i64::try_from(time.0).unwrap()).unwrap();
    stamp.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string()
}
