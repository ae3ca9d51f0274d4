//! Measures Regent on real servers, as the clients of its proxy see it: `scripts/bench`.

mod checks;
mod failover;
mod figures;
mod idle;
mod report;
mod stage;

use clap::{Args, Parser, Subcommand, ValueEnum};
use regent::demo::servers::DatabaseFlavor;
use std::process::ExitCode;

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
    /// Kill the primary and switch over, under write load
    Failover(Failover),
    /// Let a healthy cluster be, and see what watchers and proxy use
    Idle(Idle),
}

#[derive(Debug, Args)]
struct Failover {
    /// How many kills and how many switchovers of each flavour
    #[arg(long, default_value_t = 20, value_name = "N")]
    runs: u32,
    /// Which database
    #[arg(long, value_enum, default_value_t = Flavors::Both)]
    flavor: Flavors,
    /// Only these events
    #[arg(long, value_enum, default_value_t = Events::Both)]
    event: Events,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Flavors {
    Mysql,
    Mariadb,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Events {
    Kill,
    Switchover,
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

impl Events {
    fn list(self) -> Vec<failover::Event> {
        match self {
            Events::Kill => vec![failover::Event::Kill],
            Events::Switchover => vec![failover::Event::Switchover],
            Events::Both => vec![failover::Event::Kill, failover::Event::Switchover],
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let measuring = async {
        match cli.what {
            What::Failover(order) => {
                let runs =
                    failover::measure(&order.flavor.list(), &order.event.list(), order.runs).await;
                report::failovers(&runs, order.json)
            }
            What::Idle(order) => {
                let seen = idle::measure(&order.flavor.list(), order.seconds).await;
                report::idle(&seen?, order.json)
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
        Err(error) => {
            report::progress(&format!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
