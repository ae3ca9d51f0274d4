//! The `regent` command.

use clap::Parser;
use regent::cli::args::{Cli, Command, Demo, DemoFlavor, Explain};
use regent::cli::output::Output;
use regent::cli::{self, Failed, logs, reading};
use regent::demo::DemoOptions;
use regent::demo::servers::DatabaseFlavor;
use regent::{demo, node};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runs_long =
        matches!(cli.command, Command::Watch(_) | Command::Proxy(_) | Command::Agent(_));
    logs::start(
        &cli.global,
        if runs_long { "regent=info,warn,mysql_async=off" } else { "warn,mysql_async=off" },
    );
    logs::log_panics();
    let ended = runtime(&cli.command)
        .map_err(|error| Failed::Internal(format!("failed to start the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(run(&cli)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            // Nothing can be done when even standard error is closed.
            let _ = writeln!(std::io::stderr(), "regent: {failed}");
            ExitCode::from(failed.code())
        }
    }
}

/// A watcher's work is many small waits and hardly any computing: passing each result from thread to
/// thread cost it more than the work itself. The bytes of a proxy or a backup want all cores.
fn runtime(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = match command {
        Command::Proxy(_) | Command::Agent(_) | Command::Backup { .. } | Command::Demo(_) => {
            Builder::new_multi_thread()
        }
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

async fn run(cli: &Cli) -> Result<(), Failed> {
    let mut out = Output::new(&cli.global);
    match &cli.command {
        Command::Watch(watch) => {
            let ended = node::watch(config_of(cli)?, &watch.id, &watch.data_dir).await;
            ended.map_err(|error| Failed::Internal(error.to_string()))
        }
        Command::Proxy(proxy) => {
            let data_center = proxy.data_center.as_deref();
            let metrics = proxy.metrics.as_deref();
            let ended = node::proxy(config_of(cli)?, &proxy.id, data_center, metrics).await;
            ended.map_err(|error| Failed::Internal(error.to_string()))
        }
        Command::Agent(agent) => {
            let ended = node::agent(config_of(cli)?, &agent.server).await;
            ended.map_err(|error| Failed::Internal(error.to_string()))
        }
        Command::Demo(order) => demonstrate(order, cli).await,
        Command::Explain(Explain { situation: Some(file), .. }) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failed::Usage(format!("failed to read {}: {error}", file.display()))
            })?;
            let view = regent::decision::sketch::explain_text(&text)
                .map_err(|error| Failed::Usage(format!("{}: {error}", file.display())))?;
            reading::situation(&cli.global, &view, &mut out)
        }
        _ => cli::run(cli, &mut out).await,
    }
}

async fn demonstrate(order: &Demo, cli: &Cli) -> Result<(), Failed> {
    let options = DemoOptions {
        flavor: match order.flavor {
            DemoFlavor::Mysql => DatabaseFlavor::Mysql,
            DemoFlavor::Mariadb => DatabaseFlavor::Mariadb,
        },
        once: order.once,
        color: Output::new(&cli.global).color,
        program: None,
    };
    let mut stdout = std::io::stdout();
    let outcome = demo::run(options, &mut stdout)
        .await
        .map_err(|error| Failed::Internal(error.to_string()))?;
    if outcome.is_success() {
        return Ok(());
    }
    let text = "the demonstration did not go as it should; see above".to_owned();
    Err(Failed::Refused(text))
}

fn config_of(cli: &Cli) -> Result<&Path, Failed> {
    let missing = || Failed::Usage("--config is missing; name the configuration file".to_owned());
    cli.global.config.as_deref().ok_or_else(missing)
}
