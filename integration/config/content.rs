//! What an accepted configuration says.

use super::{FILE_PASSWORD, MONITOR_PASSWORD, base, parse};
use regent::config::{Config, ConfigErrors};
use regent::decision::backup::choice::{Place, Wish};
use regent::decision::topology::{AcknowledgedIn, Durability, Promotion, Timing, WatcherName};
use std::fmt::Write;
use std::time::Duration;

const GOOD: &str = include_str!("cases/good.yaml");

#[test]
fn values_and_defaults_arrive() {
    let config = parse(GOOD, base().path()).unwrap().config;
    assert_eq!(
        config.watcher(&WatcherName::from("witness")).unwrap().peer.to_string(),
        "[::1]:7421"
    );
    assert!(config.watcher(&WatcherName::from("nobody")).is_none());
    assert_eq!(config.timing, Timing::default());
    let cluster = &config.clusters[0];
    assert_eq!(cluster.credentials.monitor.password.reveal(), MONITOR_PASSWORD);
    assert_eq!(cluster.credentials.replication.password.reveal(), FILE_PASSWORD);
    let acknowledged_in = AcknowledgedIn::OtherDataCenter;
    assert_eq!(cluster.spec.durability, Durability::Lossless { acknowledged_in });
    let promotions: Vec<_> = cluster.spec.servers.iter().map(|server| server.promotion).collect();
    assert_eq!(promotions, [Promotion::Prefer, Promotion::Neutral, Promotion::Neutral]);
    assert_eq!(cluster.proxy.as_ref().unwrap().hold, Duration::from_secs(10));
    assert_eq!(config.clusters().len(), 1);
}

#[test]
fn the_fingerprint_follows_the_declaration_only() {
    let base = base();
    let fingerprint = |text: &str| parse(text, base.path()).unwrap().config.fingerprint();
    let first = fingerprint(GOOD);
    assert_eq!(first, fingerprint(&GOOD.replace("password_file: secrets/good", "password: other")));
    assert_eq!(first, fingerprint(&GOOD.replace("    durability: lossless\n", "# nothing\n")));
    for (old, new) in
        [("10.1.0.12", "10.1.0.13"), ("5s", "6s"), ("repl,", "other,"), ("prefer", "avoid")]
    {
        assert_ne!(first, fingerprint(&GOOD.replace(old, new)), "{new}");
    }
}

const BACKUPS: &str = "    backups:
      targets: [ { name: near, folder: a }, { name: far, folder: b } ]
      schedules:
        - { name: nightly, cron: 30 2 * * *, time_zone: Europe/Berlin, jitter: 5m, from: [ db3, paris ] }
        - { name: weekly, cron: '@weekly', targets: [ far, near ], window: 1h, timeout: 2h, primary: last_resort, max_lag: 1m }
      keep: { last: 3, months: 2, time_zone: Europe/Berlin }
      verify: { every: 24h, alert_after: 26h }
      binlogs: { archive_to: far, alert_after: 25m }
";

#[test]
fn schedules_arrive_and_are_part_of_the_fingerprint() {
    let base = base();
    let read = |text: &str| parse(text, base.path()).unwrap().config;
    let text = GOOD.replace("    credentials:", &format!("{BACKUPS}    credentials:"));
    let text = text.replace("    backups: []\n", "");
    let config = read(&text);
    let schedules = config.schedules();
    let [nightly, weekly] = schedules[&"shop".into()].as_slice() else { panic!("{schedules:?}") };
    assert_eq!(nightly.schedule.to_string(), "30 2 * * * Europe/Berlin");
    assert_eq!(nightly.schedule.jitter, Duration::from_secs(300));
    let from = [Place::Server("db3".into()), Place::DataCenter("paris".into())];
    assert_eq!(nightly.wish, Wish { from: from.to_vec(), ..Wish::default() });
    assert_eq!(weekly.schedule.window, Some(Duration::from_secs(3_600)));
    assert_eq!(weekly.schedule.timeout, Duration::from_secs(7_200));
    assert!(weekly.wish.primary && weekly.wish.max_lag == Duration::from_secs(60));
    let backups = config.clusters[0].backups.as_ref().unwrap();
    let targets: Vec<_> = backups.schedules.iter().map(|it| it.targets.join("+")).collect();
    assert_eq!(targets, ["near", "far+near"]);
    let keep = backups.keep.as_ref().unwrap();
    assert_eq!((keep.last, keep.days, keep.weeks, keep.months), (3, 0, 0, 2));
    let wanted = &config.proofs()[&"shop".into()];
    assert_eq!(wanted.targets, ["far", "near"]);
    assert_eq!(wanted.alert_after, Duration::from_secs(26 * 3_600));
    let archive = &config.archives()[&"shop".into()];
    assert_eq!((archive.target.as_str(), archive.alert_after.as_secs()), ("far", 25 * 60));
    assert_eq!(config.chores()[&"shop".into()].len(), 2);
    let changes = [
        ("30 2", "31 2"),
        ("5m", "6m"),
        ("targets: [ far, near ]", "target: far"),
        ("last: 3", "last: 4"),
        ("every: 24h", "every: 23h"),
        ("every: 24h", "cron: 0 4 * * *"),
        ("26h", "27h"),
        ("archive_to: far", "archive_to: near"),
        ("25m", "24m"),
    ];
    for (old, new) in changes {
        assert_ne!(config.fingerprint(), read(&text.replace(old, new)).fingerprint(), "{new}");
    }
}

#[test]
fn thousands_of_servers_are_read() {
    let (head, tail) = GOOD.split_once("    credentials:").unwrap();
    let mut text = head.to_owned();
    for number in 0..5_000 {
        let (high, low) = (number / 250, number % 250);
        writeln!(
            text,
            "      - {{ name: s{number}, address: 10.9.{high}.{low}:3306, data_center: paris }}"
        )
        .unwrap();
    }
    write!(text, "    credentials:{tail}").unwrap();
    let loaded = parse(&text, base().path()).unwrap();
    assert_eq!(loaded.config.clusters[0].spec.servers.len(), 5_003);
}

#[test]
fn a_hundred_errors_are_enough() {
    let mut text = GOOD.to_owned();
    for number in 0..150 {
        writeln!(text, "unknown{number}: 1").unwrap();
    }
    let errors = parse(&text, base().path()).unwrap_err();
    assert_eq!(errors.problems().len(), ConfigErrors::MOST);
    assert!(errors.to_string().ends_with("\nand 50 more"), "{errors}");
}

#[test]
fn unreadable_and_too_large_files_are_refused() {
    let base = base();
    let path = base.path().join("regent.yaml");
    let refusal = || Config::load(&path).unwrap_err().to_string();
    assert!(refusal().contains("cannot be read"), "{}", refusal());
    std::fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
    assert!(refusal().contains("line 2 is not UTF-8"), "{}", refusal());
    std::fs::write(&path, "# comment\n".repeat(120_000)).unwrap();
    assert!(refusal().contains("larger than 1 MiB"), "{}", refusal());
}
