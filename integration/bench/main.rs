//! Measures Regent on real servers, as the clients of its proxy see it: `scripts/bench`.

mod backup;
mod beside;
mod bucket;
mod calm;
mod checks;
mod events;
mod failover;
mod figures;
mod group_replication;
mod idle;
mod report;
mod router;
mod stage;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use events::Event;
use regent::demo::lab::{Lab, inside};
use regent::demo::servers::DatabaseFlavor;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(name = "scripts/bench", about = "Measures Regent on real servers on this machine")]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Cargo passes this to every benchmark
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Kill the primary and switch over, or let it fail in every way, under write load
    Failover(Failover),
    /// Let a healthy cluster be, and see what watchers and proxy use
    Idle(Idle),
    /// Back up a server, with Regent and with the same tools piped by hand
    Backup(Backup),
    /// Let nothing fail and everything be unpleasant, in three data centers, and see whether anybody is replaced
    Calm(Calm),
}

#[derive(Debug, Args)]
struct Failover {
    /// How many of each event, for each flavour; 20, or 10 of each fault
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// Which database
    #[arg(long, value_enum, default_value_t = Flavors::Both)]
    flavor: Flavors,
    /// Only these events, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "E")]
    event: Vec<Event>,
    /// MySQL's own Group Replication too, through the same faults
    #[arg(long)]
    peers: bool,
    /// Every fault, in three data centers on this machine
    #[arg(long, conflicts_with = "event")]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Idle {
    /// How long to watch
    #[arg(long, default_value_t = 30, value_name = "N")]
    seconds: u64,
    /// Which database
    #[arg(long, value_enum, default_value_t = Flavors::Both)]
    flavor: Flavors,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Backup {
    /// How much data
    #[arg(long, default_value = "2GB", value_name = "SIZE", value_parser = megabytes)]
    size: u64,
    /// How many backups of each kind count
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Which database
    #[arg(long, value_enum, default_value_t = Flavors::Both)]
    flavor: Flavors,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads `100MB` or `2GB`.
fn megabytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match (text.strip_suffix("MB"), text.strip_suffix("GB")) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 1000),
        _ => return Err("write 100MB or 2GB".to_owned()),
    };
    let number: u64 = number.trim().parse().map_err(|_| "write 100MB or 2GB".to_owned())?;
    if (1..=1_000_000).contains(&number) {
        Ok(number * unit)
    } else {
        Err("too much, or nothing".into())
    }
}

#[derive(Debug, Args)]
struct Calm {
    /// How long, for each flavour
    #[arg(long, default_value_t = 15, value_name = "N")]
    minutes: u64,
    /// How long each packet between data centers takes
    #[arg(long, default_value_t = 60, value_name = "MS")]
    delay: u64,
    /// Which database
    #[arg(long, value_enum, default_value_t = Flavors::Both)]
    flavor: Flavors,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Calm {
    /// How long it lasts, and how long packets take.
    fn spans(&self) -> (Duration, Duration) {
        (Duration::from_secs(60 * self.minutes), Duration::from_millis(self.delay))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Flavors {
    Mysql,
    Mariadb,
    Both,
}

impl Flavors {
    fn list(self) -> Vec<DatabaseFlavor> {
        match self {
            Flavors::Mysql => vec![DatabaseFlavor::Mysql],
            Flavors::Mariadb => vec![DatabaseFlavor::Mariadb],
            Flavors::Both => vec![DatabaseFlavor::Mysql, DatabaseFlavor::Mariadb],
        }
    }
}

impl Failover {
    fn events(&self) -> Vec<Event> {
        match (self.all, self.event.as_slice()) {
            (true, _) => Event::FAULTS.to_vec(),
            (false, []) => vec![Event::Kill, Event::Switchover],
            (false, chosen) => chosen.to_vec(),
        }
    }

    /// Whether there must be data centers that can be cut.
    fn needs_lab(&self) -> bool {
        self.all || self.event.iter().any(|event| event.needs_lab())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let needs_lab = match &cli.what {
        What::Failover(order) => order.needs_lab(),
        What::Idle(_) | What::Backup(_) => false,
        What::Calm(_) => true,
    };
    match needs_lab {
        true => {
            let ended = Lab::set_up().map_err(anyhow::Error::from).and_then(|mut lab| {
                let desk = lab.desk().to_owned();
                Ok(inside(&desk, |runtime| runtime.block_on(run(&cli, Some(&mut lab))))?)
            });
            ended.unwrap_or_else(|error| failed(&error))
        }
        false => match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(run(&cli, None)),
            Err(error) => failed(&error.into()),
        },
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    report::progress(&format!("bench: {error:#}"));
    ExitCode::FAILURE
}

async fn run(cli: &Cli, mut lab: Option<&mut Lab>) -> ExitCode {
    let measuring = async {
        match &cli.what {
            What::Failover(order) => {
                let runs = order.runs.unwrap_or(if lab.is_some() { 10 } else { 20 });
                let (flavors, events) = (order.flavor.list(), order.events());
                let mut measured =
                    failover::measure(&flavors, &events, runs, lab.as_deref_mut()).await;
                if order.peers {
                    group_replication::measure(&events, runs, lab, &mut measured).await;
                }
                report::failovers(&measured, order.json)
            }
            What::Idle(order) => {
                let seen = idle::measure(&order.flavor.list(), order.seconds).await;
                report::idle(&seen?, order.json)
            }
            What::Backup(order) => {
                let load = backup::Load { megabytes: order.size, runs: order.runs };
                let seen = backup::measure(&order.flavor.list(), load).await;
                report::backups(&seen?, order.json)
            }
            What::Calm(order) => {
                let lab = lab.as_deref_mut().context("it takes a lab")?;
                let seen = calm::measure(&order.flavor.list(), order.spans(), lab).await;
                report::calm(&seen?, order.json)
            }
        }
    };
    // Dropping what is measured ends every process and removes the directory.
    let measured = tokio::select! {
        measured = measuring => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}
