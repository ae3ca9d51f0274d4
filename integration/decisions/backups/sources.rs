//! Which server a backup reads from. A case is a situation as elsewhere, with what the schedule wants
//! in a comment line `# backup: ...`.

use super::check;
use regent::decision::backup::choice::{Choice, Fitness, Place, Wish, choose, must_yield};
use regent::decision::candidate;
use regent::decision::plan::Step;
use regent::decision::planning;
use regent::decision::procedure::{Kind, Procedure};
use regent::decision::response::procedure;
use regent::decision::rules::spans;
use regent::decision::sketch::read;
use regent::decision::topology::ServerName;
use serde::Deserialize;
use std::fmt::Write;
use std::time::Duration;

/// What a schedule wants, and where attempts of its run have failed.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WishForm {
    servers: Vec<String>,
    data_centers: Vec<String>,
    primary: bool,
    max_lag: Option<String>,
    tried: Vec<ServerName>,
}

#[test]
fn every_source_is_chosen_as_written() {
    check("integration/decisions/backups/sources", 15, |given| shown(&chosen(given)));
}

fn chosen(given: &str) -> Choice {
    let mut lines = given.lines().filter_map(|line| line.strip_prefix("# backup: "));
    let form = lines.next().map_or_else(WishForm::default, |line| {
        serde_yaml::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
    });
    let servers = form.servers.iter().map(|name| Place::Server(name.as_str().into()));
    let places = form.data_centers.iter().map(|name| Place::DataCenter(name.as_str().into()));
    let max_lag =
        form.max_lag.map_or(Duration::from_secs(600), |text| spans::parse(&text).unwrap());
    let wish =
        Wish { from: servers.chain(places).collect(), primary: form.primary, max_lag, only: None };
    let sketched = read(given).unwrap_or_else(|error| panic!("{error} in\n{given}"));
    choose(&sketched.situation, &wish, &form.tried)
}

fn shown(choice: &Choice) -> String {
    let mut text = String::new();
    let server = choice.server.as_ref().map_or("none", ServerName::as_str);
    writeln!(text, "backup from {server}").unwrap();
    if let Some(hindrance) = &choice.hindrance {
        writeln!(text, "    {hindrance}").unwrap();
    }
    for fitness in &choice.servers {
        let out = if fitness.refused.is_some() { " (refused)" } else { "" };
        let reasons: Vec<_> =
            fitness.refused.iter().chain(&fitness.reasons).map(String::as_str).collect();
        writeln!(text, "server {}{out}: {}", fitness.server, reasons.join("; ")).unwrap();
    }
    text
}

#[test]
fn an_open_procedure_comes_first() {
    let sketch = "primary: db1\nservers: [{ name: db1 }, { name: db2 }, { name: db3 }]\n";
    let mut situation = read(sketch).unwrap().situation;
    let wish =
        Wish { from: Vec::new(), primary: false, max_lag: Duration::from_secs(60), only: None };
    assert_eq!(choose(&situation, &wish, &[]).server, Some("db3".into()));
    let plan = planning::pause(&"db1".into());
    let mut open = procedure(Kind::Switchover, String::new(), "db1".into(), plan);
    open.id = 7;
    situation.state.procedure = Some(open.clone());
    let choice = choose(&situation, &wish, &[]);
    assert_eq!((choice.server, choice.hindrance.as_deref()), (None, Some("switchover 7 is open")));
    // One that leaves the route alone is only in the way where it works.
    open.kind = Kind::Repair;
    open.plan[0].steps[0].step = Step::Acknowledges { server: "db3".into(), on: true };
    situation.state.procedure = Some(open);
    let choice = choose(&situation, &wish, &[]);
    assert_eq!(choice.server, Some("db2".into()));
    assert!(shown(&choice).contains("db3 (refused): repair 7 works on it"), "{}", shown(&choice));
}

#[test]
fn files_are_copied_where_an_agent_is_only() {
    let sketch = "primary: db1\nservers: [{ name: db1 }, { name: db2 }, { name: db3 }]\n";
    let situation = read(sketch).unwrap().situation;
    let only = |names: &[&str]| {
        let only = Some(names.iter().map(|name| ServerName::from(*name)).collect());
        choose(&situation, &Wish { only, ..Wish::default() }, &[])
    };
    assert_eq!(choose(&situation, &Wish::default(), &[]).server, Some("db3".into()));
    let choice = only(&["db1", "db2"]);
    assert_eq!(choice.server, Some("db2".into()), "although a failover would promote it first");
    assert!(shown(&choice).contains("server db3 (refused): has no agent"), "{}", shown(&choice));
    assert_eq!(only(&[]).server, None);
}

#[test]
fn a_backup_yields_to_what_makes_its_server_the_primary_or_replaces_its_data() {
    let sketch = "primary: db1\nservers: [{ name: db1 }, { name: db2 }, { name: db3 }]\n";
    let mut situation = read(sketch).unwrap().situation;
    let wish =
        |primary| Wish { from: Vec::new(), primary, max_lag: Duration::from_secs(60), only: None };
    let mut told = |server: &str, primary: bool, open: Option<Procedure>| {
        situation.state.procedure = open;
        must_yield(&situation, &wish(primary), &server.into())
    };
    assert_eq!(told("db3", false, None), None);
    assert_eq!(told("db1", true, None), None);
    assert!(told("db1", false, None).unwrap().starts_with("is the primary now"));
    assert_eq!(told("db9", true, None).as_deref(), Some("is declared no longer"));
    let plan = planning::pause(&"db1".into());
    let mut open = procedure(Kind::Failover, String::new(), "db1".into(), plan);
    open.id = 7;
    assert_eq!(told("db3", false, Some(open.clone())), None);
    open.to = Some("db3".into());
    let promoted = told("db3", false, Some(open.clone()));
    assert_eq!(promoted.as_deref(), Some("failover 7 promotes it"));
    assert_eq!(told("db2", false, Some(open.clone())), None);
    let (server, donor) = ("db2".into(), "db3".into());
    let address = "10.0.0.3:3306".parse().unwrap();
    open.plan[0].steps[0].step = Step::Rebuilt { server, donor, address, since: 1 };
    open.to = None;
    open.kind = Kind::Rejoin;
    let replaced = told("db2", false, Some(open.clone()));
    assert_eq!(replaced.as_deref(), Some("rejoin 7 replaces its data"));
    // What is copied from goes on being read.
    assert_eq!(told("db3", false, Some(open)), None);
}

/// What holds of every choice, in all situations that there are cases of.
#[test]
fn in_no_known_situation_is_a_server_taken_that_should_be_left_alone() {
    let mut chosen = 0;
    for file in crate::cases::files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let sketch = text.split_once("---\n").map_or(text.as_str(), |(sketch, _)| sketch);
        let Ok(sketched) = read(sketch) else { continue };
        let situation = sketched.situation;
        let best = candidate::expected(&situation);
        let primary = situation.primary().map(|server| &server.name);
        for allowed in [false, true] {
            let max_lag = Duration::from_secs(60);
            let wish = Wish { from: Vec::new(), primary: allowed, max_lag, only: None };
            let choice = choose(&situation, &wish, &[]);
            let place = file.display();
            assert_eq!(choice.servers.len(), situation.spec.servers.len(), "{place}");
            let Some(server) = &choice.server else { continue };
            chosen += 1;
            assert!(situation.status(server).is_some(), "{place}: {server} does not answer");
            assert!(situation.maintained(server).is_none(), "{place}: {server}");
            assert!(!situation.is_rebuilding(server), "{place}: {server}");
            let fit = |it: &&Fitness| it.refused.is_none() && Some(&it.server) != primary;
            let fit: Vec<_> = choice.servers.iter().filter(fit).map(|it| &it.server).collect();
            if Some(server) == primary {
                assert!(allowed && fit.is_empty(), "{place}: {server} is the primary");
            } else {
                assert!(fit.contains(&server), "{place}: {server} is not fit");
                let needed = choice.server == best && fit.len() > 1;
                assert!(!needed, "{place}: a failover would promote {server}");
            }
        }
    }
    assert!(chosen > 60, "only {chosen} choices");
}
