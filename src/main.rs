//! The `regent` command.

use clap::Parser;
use regent::cli::args::{Cli, Command, DemoFlavor, Explain};
use regent::cli::output::Output;
use regent::cli::{self, Failed, logs, reading};
use regent::decision::topology::Flavor;
use regent::{demo, node};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runs_long = matches!(cli.command, Command::Watch(_) | Command::Proxy(_));
    logs::start(
        &cli.global,
        if runs_long {
            "regent=info,warn"
        } else {
            "warn"
        },
    );
    logs::log_panics();
    let ended = tokio::runtime::Runtime::new()
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
        Command::Demo(order) => {
            let flavor = match order.flavor {
                DemoFlavor::Mysql => Flavor::MySql,
                DemoFlavor::Mariadb => Flavor::MariaDb,
            };
            let options = demo::Options {
                flavor,
                once: order.once,
                keep: order.keep,
            };
            demo::run(options)
                .await
                .map_err(|error| Failed::Refused(error.to_string()))
        }
        Command::Explain(Explain {
            situation: Some(file),
            ..
        }) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failed::Usage(format!("failed to read {}: {error}", file.display()))
            })?;
            let view = regent::decision::situation::explain_text(&text)
                .map_err(|error| Failed::Usage(format!("{}: {error}", file.display())))?;
            reading::situation(&cli.global, &view, &mut out)
        }
        _ => cli::run(cli, &mut out).await,
    }
}

fn config_of(cli: &Cli) -> Result<&Path, Failed> {
    let missing = || Failed::Usage("--config is missing; name the configuration file".to_owned());
    cli.global.config.as_deref().ok_or_else(missing)
}
