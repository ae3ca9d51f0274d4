//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Keeps a MySQL or MariaDB replication cluster writable.
#[derive(Debug, Parser)]
#[command(name = "regent", version, max_term_width = 100, after_help = FIRST_STEPS)]
pub struct Cli {
    /// What all commands take.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands take.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// A watcher's API; several, separated by commas, are tried in turn
    #[arg(
        long,
        global = true,
        env = "REGENT_API",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Global options"
    )]
    pub api: Vec<String>,
    /// The configuration file; its watchers' APIs are used unless --api names one
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Print the API's JSON, unchanged (docs/api.md)
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Colour: when the output is a terminal and NO_COLOR is not set, always, or never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", help_heading = "Global options")]
    pub color: Color,
    /// How log lines look; RUST_LOG says which are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", help_heading = "Global options")]
    pub log_format: LogFormat,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented configuration to start from
    #[command(
        after_help = "Examples:\n  regent init /etc/regent\n  regent init . && regent validate regent.yaml"
    )]
    Init {
        /// Where to; it is made when it is missing, and no file in it is overwritten
        dir: PathBuf,
    },
    /// Check a configuration and name every mistake with its place
    #[command(after_help = "Examples:\n  regent validate /etc/regent/regent.yaml")]
    Validate {
        /// The configuration file
        file: PathBuf,
    },
    /// Run a watcher
    #[command(
        after_help = "Examples:\n  regent watch --config regent.yaml --id paris --data-dir /var/lib/regent\n  RUST_LOG=regent=debug regent watch --config regent.yaml --id london --data-dir data --log-format json"
    )]
    Watch(Watch),
    /// Run a proxy, which applications connect to as if it were their database server
    #[command(
        after_help = "Examples:\n  regent proxy --config regent.yaml --id proxy-1\n  regent proxy --config regent.yaml --id proxy-2 --data-center london --metrics 127.0.0.1:7410"
    )]
    Proxy(Proxy),
    /// Run an agent beside a database server, which hands out copies of the server's files
    #[command(
        after_help = "Examples:\n  regent agent --config regent.yaml --server db2\n\nRun it on the server's host, as the database's user. See docs/backups.md."
    )]
    Agent(Agent),
    /// Take a running cluster as it is, naming its primary
    #[command(
        after_help = "Examples:\n  regent adopt shop --primary db1\n\nNeeded only where the cluster could not be adopted by itself; 'regent status' says why."
    )]
    Adopt {
        /// The cluster
        cluster: String,
        /// The server that is its primary
        #[arg(long, value_name = "SERVER")]
        primary: String,
    },
    /// Show all clusters at a glance, or one
    #[command(
        after_help = "Examples:\n  regent status\n  regent status shop --api 10.1.0.5:7400\n  regent status --json | jq '.clusters[].primary'"
    )]
    Status {
        /// Only this cluster
        cluster: Option<String>,
    },
    /// Show who follows whom
    #[command(after_help = "Examples:\n  regent topology shop")]
    Topology {
        /// The cluster
        cluster: String,
    },
    /// Say what would happen now, or if a server died, and why
    #[command(
        after_help = "Examples:\n  regent explain shop\n  regent explain shop --without db1\n  regent explain --situation primary-dead.yaml    offline, needs no watcher"
    )]
    Explain(Explain),
    /// Show what happened
    #[command(
        after_help = "Examples:\n  regent events --cluster shop\n  regent events --follow\n  regent events --after 120 --json"
    )]
    Events(Events),
    /// Move the primary's role to another server while it is healthy
    #[command(
        after_help = "Examples:\n  regent switchover shop --dry-run\n  regent switchover shop --to db2\n  regent switchover shop --to db2 --yes"
    )]
    Switchover(Switchover),
    /// Replace the primary now, dead or not
    #[command(
        after_help = "Examples:\n  regent failover shop --dry-run\n  regent failover shop --to db3\n  regent failover shop --accept-loss --yes"
    )]
    Failover(Failover),
    /// Mend now what can be mended, without waiting for cooldowns or budgets
    #[command(after_help = "Examples:\n  regent repair shop --dry-run\n  regent repair shop --yes")]
    Repair(Repair),
    /// Leave a server, or a whole cluster, alone for a while
    #[command(
        after_help = "Examples:\n  regent maintenance shop db3 --for 30m --reason 'new disks'\n  regent maintenance shop --for 2h --reason 'network move' --yes\n  regent maintenance shop db3 --end\n\nA server in maintenance is never promoted, repaired, read from through a proxy or counted on. In a\ncluster in maintenance nothing happens by rule; switchover and failover by hand still work."
    )]
    Maintenance(Maintenance),
    /// Let a server follow again whose history diverged
    #[command(
        after_help = "Examples:\n  regent rejoin shop db1 --dry-run\n  regent rejoin shop db1\n  regent rejoin shop db1 --rebuild --from db3 --yes\n  regent rejoin shop db1 --rebuild --from-backup --user root --password-file root --config regent.yaml\n\nWhat the server alone holds is written to a file first; 'regent events' names it."
    )]
    Rejoin(Rejoin),
    /// Back clusters up, and bring backups back; needs --config
    #[command(
        after_help = "Examples:\n  regent backup now shop --config regent.yaml\n  regent backup list --config regent.yaml\n  regent backup verify shop latest --identity key.txt --config regent.yaml"
    )]
    Backup {
        /// What to do with backups
        #[command(subcommand)]
        order: BackupOrder,
    },
    /// Run a whole cluster on this machine to try things on
    #[command(after_help = "Examples:\n  regent demo\n  regent demo --flavor mariadb --once")]
    Demo(Demo),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  regent completion bash > /etc/bash_completion.d/regent\n  regent completion zsh > ~/.zfunc/_regent\n  regent completion fish > ~/.config/fish/completions/regent.fish"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `regent watch`; needs `--config`.
#[derive(Debug, Args)]
pub struct Watch {
    /// This watcher's id in the configuration
    #[arg(long, value_name = "ID")]
    pub id: String,
    /// Where it keeps what it must not forget
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `regent proxy`; needs `--config`.
#[derive(Debug, Args)]
pub struct Proxy {
    /// This proxy's name; unique among proxies
    #[arg(long, value_name = "NAME")]
    pub id: String,
    /// Where it stands; reads prefer replicas there
    #[arg(long, value_name = "NAME")]
    pub data_center: Option<String>,
    /// Where to serve /metrics
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
}

/// `regent explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The cluster
    #[arg(required_unless_present = "situation")]
    pub cluster: Option<String>,
    /// As if this server were dead
    #[arg(long, value_name = "SERVER", conflicts_with = "situation")]
    pub without: Option<String>,
    /// A situation described in a file instead of a running cluster
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    pub situation: Option<PathBuf>,
}

/// `regent events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on showing events as they happen, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// Only of this cluster
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Only events numbered above this
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
}

/// `regent switchover`.
#[derive(Debug, Args)]
pub struct Switchover {
    /// The cluster
    pub cluster: String,
    /// Where to; the best candidate when absent
    #[arg(long, value_name = "SERVER")]
    pub to: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `regent failover`.
#[derive(Debug, Args)]
pub struct Failover {
    /// The cluster
    pub cluster: String,
    /// Where to; the best candidate when absent
    #[arg(long, value_name = "SERVER")]
    pub to: Option<String>,
    /// Go on although acknowledged transactions may be lost
    #[arg(long)]
    pub accept_loss: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `regent rejoin`.
#[derive(Debug, Args)]
pub struct Rejoin {
    /// The cluster
    pub cluster: String,
    /// The server
    pub server: String,
    /// Replace its data, even where that is not needed
    #[arg(long)]
    pub rebuild: bool,
    /// Whose data it gets; the best donor when absent
    #[arg(long, value_name = "SERVER")]
    pub from: Option<String>,
    /// A backup instead of another server's data
    #[command(flatten)]
    pub backup: RejoinBackup,
    /// Go on although its own transactions cannot be written down
    #[arg(long)]
    pub accept_loss: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// What `regent rejoin` needs to bring a server back from a backup; needs `--config`.
#[derive(Debug, Args)]
pub struct RejoinBackup {
    /// Bring it back from a backup, as 'regent backup list' shows it; from the newest when none is named
    #[arg(
        long, value_name = "BACKUP", num_args = 0..=1, default_missing_value = "latest",
        requires_all = ["rebuild", "user"], conflicts_with = "from"
    )]
    pub from_backup: Option<String>,
    /// Where the backup is; the first target when absent
    #[arg(long, value_name = "NAME", requires = "from_backup")]
    pub target: Option<String>,
    /// An account of that server with all privileges
    #[arg(long, value_name = "NAME", requires_all = ["from_backup", "password_file"])]
    pub user: Option<String>,
    /// The file with that account's password
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// The file with an age secret key, for an encrypted backup
    #[arg(long, value_name = "FILE", requires = "from_backup")]
    pub identity: Option<PathBuf>,
}

/// `regent repair`.
#[derive(Debug, Args)]
pub struct Repair {
    /// The cluster
    pub cluster: String,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `regent maintenance`.
#[derive(Debug, Args)]
pub struct Maintenance {
    /// The cluster
    pub cluster: String,
    /// The server; the whole cluster when absent
    pub server: Option<String>,
    /// For how long, such as 30m or 2h
    #[arg(long = "for", value_name = "SPAN", required_unless_present = "end", requires = "reason")]
    pub lasts: Option<String>,
    /// Why; everybody who looks is shown it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// End it now
    #[arg(long, conflicts_with_all = ["lasts", "reason"])]
    pub end: bool,
    /// Its data goes meanwhile, and what it holds counts for nothing; with --end: it has other data, all of it
    #[arg(long, requires = "server")]
    pub new_data: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `regent backup`.
#[derive(Debug, Subcommand)]
pub enum BackupOrder {
    /// Take a backup now, on this machine
    Now(BackupNow),
    /// Show the backups that targets hold
    List {
        /// Only of this cluster
        cluster: Option<String>,
        /// Only at this target
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
    },
    /// Show all that is known of a backup
    Show(BackupNamed),
    /// Fetch a backup, check every sum, decrypt and decompress it, and note beside it what was found
    Verify {
        /// Which
        #[command(flatten)]
        named: BackupNamed,
        /// Restore it into a server that is thrown away afterwards, and compare every table
        #[arg(long)]
        restore: bool,
        /// The file with an age secret key, for an encrypted backup
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
    },
    /// Bring a backup back, into a new server or a file; up to a moment, with what was archived
    Restore(Box<BackupRestore>),
    /// Archive the binary log, until Ctrl-C, so that any moment can be restored
    Archive {
        /// The cluster
        cluster: String,
        /// Where to; the first target when absent
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
    },
    /// Remove scheduled backups that nothing asks to keep
    Prune(BackupPrune),
    /// Remove one backup, whoever asked for it
    Remove(BackupRemove),
    /// Forbid to remove a backup, or allow it again
    Hold(BackupHold),
}

/// `regent backup prune`.
#[derive(Debug, Args)]
pub struct BackupPrune {
    /// The cluster
    pub cluster: String,
    /// Only at this target
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// `regent backup remove`.
#[derive(Debug, Args)]
pub struct BackupRemove {
    /// The cluster
    pub cluster: String,
    /// The backup, as 'regent backup list' shows it
    pub backup: String,
    /// Where it is; the first target when absent
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `regent backup hold`.
#[derive(Debug, Args)]
pub struct BackupHold {
    /// Which
    #[command(flatten)]
    pub named: BackupNamed,
    /// Why; it is kept beside the backup
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Allow it again
    #[arg(long, conflicts_with = "reason")]
    pub off: bool,
}

/// `regent backup now`.
#[derive(Debug, Args)]
pub struct BackupNow {
    /// The cluster
    pub cluster: String,
    /// Whose data; a healthy replica that a failover would not promote first when absent
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// Where to, several times if wanted; the first target when absent
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// To all targets
    #[arg(long, conflicts_with = "target")]
    pub all_targets: bool,
    /// How; as the configuration says when absent
    #[arg(long, value_enum, value_name = "METHOD")]
    pub method: Option<BackupMethod>,
}

/// How a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackupMethod {
    /// The server is read over the network, as SQL.
    Logical,
    /// The agent on the server's host copies its files.
    Physical,
}

/// One backup.
#[derive(Clone, Debug, Args)]
pub struct BackupNamed {
    /// The cluster
    pub cluster: String,
    /// The backup, as 'regent backup list' shows it, or latest
    pub backup: String,
    /// Where it is; the first target when absent
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
}

/// `regent backup restore`.
#[derive(Debug, Args)]
pub struct BackupRestore {
    /// Which
    #[command(flatten)]
    pub named: BackupNamed,
    /// A new server that holds nothing yet, as HOST:PORT
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["file", "data_dir"], requires = "user")]
    pub into: Option<String>,
    /// An account there with all privileges
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,
    /// The file with that account's password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A new file, which gets the SQL
    #[arg(long, value_name = "FILE", conflicts_with_all = ["into", "dry_run"])]
    pub file: Option<PathBuf>,
    /// An empty directory for a physical backup, on which a server is started afterwards
    #[arg(long, value_name = "DIR", conflicts_with_all = ["into", "file"])]
    pub data_dir: Option<PathBuf>,
    /// The file with an age secret key, for an encrypted backup
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Throw away all that this server holds, which --into names: by its name in the cluster, or by the
    /// same address
    #[arg(long, value_name = "SERVER", requires = "into")]
    pub overwrite: Option<String>,
    /// Let the server follow the cluster's primary afterwards
    #[arg(long, requires = "into", conflicts_with_all = ["to_time", "to_gtid", "before_gtid"])]
    pub follow: bool,
    /// Only look whether the server could take it, and say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Up to which moment
    #[command(flatten)]
    pub moment: RestoreMoment,
}

/// Where `regent backup restore` goes on to after the backup.
#[derive(Debug, Args)]
pub struct RestoreMoment {
    /// Then carry out what was committed up to this moment, such as 2026-11-22T19:15:00+01:00, or latest
    #[arg(long, value_name = "TIME", conflicts_with_all = ["file", "to_gtid", "before_gtid"])]
    pub to_time: Option<String>,
    /// Then carry out what was committed up to this transaction, and it too
    #[arg(long, value_name = "GTID", conflicts_with_all = ["file", "before_gtid"])]
    pub to_gtid: Option<String>,
    /// Then carry out what was committed before this transaction
    #[arg(long, value_name = "GTID", conflicts_with = "file")]
    pub before_gtid: Option<String>,
    /// Go on with a restore that was broken off, or from a moment that was restored to a later one
    #[arg(long, requires = "into")]
    pub resume: bool,
}

/// `regent agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// The server it stands beside
    #[arg(long, value_name = "SERVER")]
    pub server: String,
}

/// `regent demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Tear everything down at the end; exit 0 only if writes went on and nothing acknowledged is
    /// missing
    #[arg(long)]
    pub once: bool,
    /// The database product
    #[arg(long, value_enum, default_value_t = DemoFlavor::Mysql)]
    pub flavor: DemoFlavor,
    /// Keep the working directory afterwards
    #[arg(long)]
    pub keep: bool,
}

/// The products the demo can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoFlavor {
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
}

const FIRST_STEPS: &str = "Examples:
  regent demo                                  a whole cluster on this machine to try things on
  regent init DIR && regent validate DIR/regent.yaml
  regent status --config regent.yaml

Exit codes: 0 done, 1 refused, 2 usage, 3 cannot reach a watcher, 4 internal.";
