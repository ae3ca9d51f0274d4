//! The command line against a made-up watcher.

use crate::endpoints::http;
use crate::fake::{self, Fake, leading, place, refused, start};
use clap::CommandFactory;
use insta::assert_snapshot;
use regent::cli::args::Cli;
use regent::decision::view::{RefusalCode, Request, Response};
use std::collections::BTreeMap;
use std::process::Output;

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

async fn regent(arguments: &[&str]) -> Ended {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let run = move || -> Output {
        let mut command = assert_cmd::cargo::cargo_bin_cmd!("regent");
        command.env_remove("REGENT_API").env_remove("RUST_LOG").env("COLUMNS", "80");
        command.args(arguments).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn ask(fake: &Fake, arguments: &[&str]) -> Ended {
    let mut all = arguments.to_vec();
    all.extend(["--api", &fake.base]);
    regent(&all).await
}

#[tokio::test]
async fn status_is_a_table_that_fits() {
    let fake = leading().await;
    let ended = ask(&fake, &["status"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_snapshot!(ended.stdout, @r"
    watchers  paris leads, london, cloud unreachable
    proxies   proxy-1 (12 sessions)

    shop: degraded, primary db1, epoch 4, lossless with 1 acknowledgement(s)
      db3 is too far behind to serve reads
    SERVER ROLE    HEALTH          LAG    DATA CENTER ADDRESS        VERSION
    db1    primary healthy         0.0 s  paris       10.1.0.11:3306 MySQL 9.7.4
    db2    replica healthy         0.0 s  paris       10.1.0.12:3306 MySQL 9.7.4
    db3    replica replica_lagging 12.2 s paris       10.1.0.13:3306 MySQL 9.7.4
    ! replica_lagging: db3 is 12 s behind
      proofs at s3: 20261120T013001000Z-db3 proven 2026-11-16T11:36:40.000Z, its
        data is 20 h 20 min old; 4 of 9 proven; 1 failed, the newest
        20261119T013001000Z-db3: part 2 is damaged
      binary log at s3: archived up to 2026-11-17T11:10:01.000Z, 4 s behind; 12
        segment(s) since it began, 73.4 MB; 1 gap(s) that no recovery can cross
      prove: by london; restores 20261121T013001000Z-db3 of target s3 for a proof
        since 2026-11-17T11:10:01.000Z, 73.4 MB of 104.8 MB; could not: paris: there
        is no mysqld on this machine
    ");
    assert!(ended.stdout.lines().all(|line| line.chars().count() <= 80));
}

#[tokio::test]
async fn topology_is_a_tree() {
    let fake = leading().await;
    let ended = ask(&fake, &["topology", "shop"]).await;
    assert_snapshot!(ended.stdout, @r"
    shop: degraded, primary db1, epoch 4, lossless with 1 acknowledgement(s)
      db3 is too far behind to serve reads
    db1  primary  healthy  paris  writable
    ├─ db2  replica  healthy  paris  lag 0.0 s  acknowledges
    └─ db3  replica  replica_lagging  paris  lag 12.2 s  48 behind
    ! replica_lagging: db3 is 12 s behind
    ");
    let painted = ask(&fake, &["topology", "shop", "--color", "always"]).await.stdout;
    assert!(painted.contains("\u{1b}[32mhealthy\u{1b}[0m"), "{painted:?}");
}

#[tokio::test]
async fn explain_says_what_and_why() {
    let fake = leading().await;
    let ended = ask(&fake, &["explain", "shop", "--without", "db1"]).await;
    assert_snapshot!(ended.stdout, @r"
    shop

    findings
    ! replica_lagging: db3 is 12 s behind
        paris saw 12.2 s on db3

    response  alert (replica-lagging)
      - a lagging replica does not stop writes

    candidates, best first
      db2 eligible: holds everything db1 has
      db3 excluded: 48 transactions behind

    plan
      1. isolate
         - db1 takes no writes

    durability  each commit waits for db2
    ");
}

#[tokio::test]
async fn events_are_listed() {
    let fake = leading().await;
    let ended = ask(&fake, &["events", "--cluster", "shop"]).await;
    assert_snapshot!(ended.stdout, @r"
    1 2026-11-18T11:06:40.250Z shop finding_began: db1 is dead
    2 2026-11-18T11:06:40.500Z shop route_opened: db2 takes writes under epoch 4
    ");
}

#[tokio::test]
async fn procedures_are_followed_to_their_end() {
    let fake = leading().await;
    let ended = ask(&fake, &["switchover", "shop", "--to", "db2"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_snapshot!(ended.stdout, @r"
    switchover 3: asked for by an operator
      isolate
        done: db1 takes no writes (12 ms)
      promote
        done: db2 takes writes (12 ms)
    done: db2 is the primary
    took 140 ms
    ");
    let ended = ask(&fake, &["failover", "shop", "--yes"]).await;
    assert_eq!(ended.code, 1);
    assert_snapshot!(ended.stderr, @"regent: the failover of shop is abandoned: no candidate is left; see regent status shop, regent events --cluster shop");
}

#[tokio::test]
async fn json_is_the_apis_own() {
    let fake = leading().await;
    let pairs: [(&[&str], &str); 4] = [
        (&["status"], "/v1/status"),
        (&["topology", "shop"], "/v1/clusters/shop/topology"),
        (&["explain", "shop"], "/v1/clusters/shop/explain"),
        (&["events"], "/v1/events"),
    ];
    for (command, path) in pairs {
        let mut arguments = command.to_vec();
        arguments.push("--json");
        let shown = ask(&fake, &arguments).await.stdout;
        let response = http().get(format!("{}{path}", fake.base)).send().await.unwrap();
        assert_eq!(shown, format!("{}\n", response.text().await.unwrap()), "{command:?}");
    }
}

#[tokio::test]
async fn exit_codes_and_advice() {
    let fake = leading().await;
    let gone = format!("http://{}", place().await.endpoint);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["switchover", "shop", "--to", "db1"], 1, "db1 is the primary already"),
        (&["status", "shoe"], 1, "there is no cluster shoe; known: shop"),
        (&["adopt", "shop"], 2, "--primary"),
        (&["explain"], 2, "required"),
        (&["failover", "shop", "--accept-loss"], 2, "add --yes"),
        (&["rejoin", "shop", "db1", "--rebuild"], 2, "add --yes"),
        (&["adopt", "shop", "--primary", "\u{7}"], 2, "give a name"),
        (&["adopt", "shop", "--primary", "db1"], 0, ""),
    ];
    for (arguments, code, text) in cases {
        let ended = ask(&fake, arguments).await;
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(text), "{arguments:?}: {}", ended.stderr);
    }
    assert!(!fake.asked.lock().unwrap().iter().any(|one| matches!(one, Request::Failover { .. })));

    let ended = regent(&["status", "--api", &gone]).await;
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("no watcher can be reached"), "{}", ended.stderr);
    let ended = regent(&["status"]).await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("give --api URL, set REGENT_API"), "{}", ended.stderr);

    // One that is gone and one that knows no leader do not hide the one that does.
    fn cut_off(_: &Request) -> Option<Response> {
        Some(refused(RefusalCode::NoLeader, "no watcher leads", None))
    }
    let alone = start("london", None, place().await, BTreeMap::new(), cut_off).await;
    let all = format!("{gone},{},{}", alone.base, fake.base);
    assert_eq!(regent(&["status", "--api", &all]).await.code, 0);
    assert_eq!(regent(&["status", "--api", &alone.base]).await.code, 1);
    assert_eq!(fake::status_view().clusters.len(), 1);
}

#[tokio::test]
async fn completion_scripts_are_made() {
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef regent"), ("fish", "complete -c regent")]
    {
        let ended = regent(&["completion", shell]).await;
        assert_eq!(ended.code, 0);
        assert!(ended.stdout.contains(mark), "{shell}");
        assert!(ended.stdout.contains("switchover"), "{shell}");
    }
}

#[test]
fn every_help_has_an_example() {
    for command in Cli::command().get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        let example = format!("regent {}", command.get_name());
        let after = help.split_once("Examples:").map_or("", |(_, after)| after);
        assert!(after.contains(&example), "{} has no example", command.get_name());
    }
}
