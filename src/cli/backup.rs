//! `regent backup`: works on this machine and asks no watcher.

use super::Failed;
use super::args::{BackupMethod, BackupNamed, BackupNow, BackupOrder, BackupRestore, Global};
use super::output::{Output, plain, table};
use crate::clock::{Clock, Moment};
use crate::config::backups::{Backups, Method};
use crate::config::secret::Secret;
use crate::config::{Account, ClusterConfig, Config};
use crate::decision::backup::catalog::{Catalog, Entry};
use crate::decision::backup::manifest::{self, Manifest};
use crate::decision::topology::Endpoint;
use crate::runtime::backup::{
    self, BackupError, Destination, Identities, IdentityError, Order, Progress, Target,
};
use serde::Serialize;
use serde_json::json;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// No database takes a longer password.
const MOST_PASSWORD: u64 = 1026;

/// Carries out an order about backups.
pub async fn backup(global: &Global, order: &BackupOrder, out: &mut Output) -> Result<(), Failed> {
    let missing = || Failed::Usage("--config is missing; name the configuration file".to_owned());
    let path = global.config.as_deref().ok_or_else(missing)?;
    let loaded = Config::load(path).map_err(|errors| Failed::Usage(errors.to_string()))?;
    let config = &loaded.config;
    match order {
        BackupOrder::Now(now) => take(global, config, now, out).await,
        BackupOrder::List { cluster, target } => {
            list(global, config, (cluster.as_deref(), target.as_deref()), out).await
        }
        BackupOrder::Show(named) => show(global, config, named, out).await,
        BackupOrder::Verify { named, identity } => {
            verify(global, config, (named, identity.as_deref()), out).await
        }
        BackupOrder::Restore(restore) => bring_back(global, config, restore, out).await,
    }
}

async fn take(
    global: &Global,
    config: &Config,
    now: &BackupNow,
    out: &mut Output,
) -> Result<(), Failed> {
    let (cluster, backups) = configured(config, &now.cluster)?;
    let target = open(backups, now.target.as_deref())?;
    let source = match &now.server {
        Some(name) => backup::named(cluster, config.timing, name).await?,
        None => backup::choose(cluster, config.timing).await?,
    };
    let (target, source) = (&target, &source);
    let method = now.method.map_or(backups.method, |method| match method {
        BackupMethod::Logical => Method::Logical,
        BackupMethod::Physical => Method::Physical,
    });
    let agent = backup::agent_for(method, config, cluster, &source.server.name)?;
    let agent = agent.as_ref();
    let order = Order { cluster, backups, source, target, agent, clock: Clock::start() };
    let shown = Shown::begin(global, "stored");
    let stop = stopped()?;
    let manifest = backup::take(&order, &shown.progress, stop).await;
    shown.end().await;
    let manifest = manifest?;
    if global.json {
        return json_of(&manifest, out);
    }
    let text = format!(
        "backup {} of {} is at {}: {} stored, {} of {} from {}\n{}",
        manifest.id,
        manifest.cluster,
        target.name,
        amount(manifest.bytes),
        amount(manifest.plain_bytes),
        content(manifest.method),
        manifest.server,
        left_out(&manifest)
    );
    Ok(out.text(&text)?)
}

async fn list(
    global: &Global,
    config: &Config,
    (cluster, target): (Option<&str>, Option<&str>),
    out: &mut Output,
) -> Result<(), Failed> {
    let named: Vec<&str> = match cluster {
        Some(cluster) => vec![cluster],
        None => {
            let all = config.clusters.iter().filter(|it| it.backups.is_some());
            all.map(|it| it.spec.name.as_str()).collect()
        }
    };
    let mut catalogs = Vec::new();
    for name in named {
        let (cluster, backups) = configured(config, name)?;
        for declared in &backups.targets {
            if target.is_none_or(|wanted| wanted == declared.name) {
                let target = open(backups, Some(&declared.name))?;
                catalogs.push(backup::catalog(&target, &cluster.spec.name).await?);
            }
        }
    }
    if global.json {
        return json_of(&catalogs, out);
    }
    if catalogs.is_empty() {
        return Ok(out.text("no backups are configured\n")?);
    }
    let texts: Vec<String> = catalogs.iter().map(|it| listed(it, out.width)).collect();
    Ok(out.text(&texts.join("\n"))?)
}

async fn show(
    global: &Global,
    config: &Config,
    named: &BackupNamed,
    out: &mut Output,
) -> Result<(), Failed> {
    let (_, manifest) = found(config, named).await?;
    if global.json { json_of(&manifest, out) } else { Ok(out.text(&described(&manifest))?) }
}

async fn verify(
    global: &Global,
    config: &Config,
    (named, identity): (&BackupNamed, Option<&Path>),
    out: &mut Output,
) -> Result<(), Failed> {
    let identities = identities(identity)?;
    let (target, manifest) = found(config, named).await?;
    let shown = Shown::begin(global, "fetched");
    let verified = backup::verify(&target, &manifest, &identities, &shown.progress).await;
    shown.end().await;
    verified?;
    if global.json {
        return json_of(&json!({ "id": manifest.id, "whole": true, "bytes": manifest.bytes }), out);
    }
    let text = format!(
        "backup {} is whole: {} in {} part(s), {} of {}\n",
        manifest.id,
        amount(manifest.bytes),
        manifest.parts.len(),
        amount(manifest.plain_bytes),
        content(manifest.method)
    );
    Ok(out.text(&text)?)
}

async fn bring_back(
    global: &Global,
    config: &Config,
    restore: &BackupRestore,
    out: &mut Output,
) -> Result<(), Failed> {
    let identities = identities(restore.identity.as_deref())?;
    let (_, backups) = configured(config, &restore.named.cluster)?;
    if let Some(directory) = &restore.data_dir {
        return into_directory(global, config, (restore, directory, &identities), out).await;
    }
    let destination = destination(restore, backups)?;
    let (target, manifest) = found(config, &restore.named).await?;
    let shown = Shown::begin(global, "fetched");
    let progress = &shown.progress;
    let (place, ended) = match (&destination, &restore.file) {
        (Some(destination), _) => {
            let how = (restore.dry_run, progress);
            let ended =
                backup::into_server(&target, &manifest, &identities, destination, how).await;
            (destination.address.to_string(), ended.map(|restored| restored.refused))
        }
        (None, Some(file)) => {
            let ended = backup::into_file(&target, &manifest, &identities, file, progress).await;
            (file.display().to_string(), ended.map(|()| Vec::new()))
        }
        (None, None) => {
            return Err(Failed::Usage("name a server with --into, or a --file".to_owned()));
        }
    };
    shown.end().await;
    let refused = ended?;
    if global.json {
        let done = !restore.dry_run;
        let said = json!({ "id": manifest.id, "into": place, "done": done, "refused": refused });
        return json_of(&said, out);
    }
    if restore.dry_run {
        return Ok(out.text(&format!("backup {} can be restored into {place}\n", manifest.id))?);
    }
    let mut text = format!(
        "backup {} is in {place}: {} of SQL, position {}\n",
        manifest.id,
        amount(manifest.plain_bytes),
        manifest.position
    );
    for statement in refused {
        text.push_str(&format!("! refused there, mend it by hand: {statement}\n"));
    }
    Ok(out.text(&text)?)
}

/// Unpacks a physical backup, and says what is left to do.
async fn into_directory(
    global: &Global,
    config: &Config,
    (restore, directory, identities): (&BackupRestore, &Path, &Identities),
    out: &mut Output,
) -> Result<(), Failed> {
    let (_, backups) = configured(config, &restore.named.cluster)?;
    let (target, manifest) = found(config, &restore.named).await?;
    let shown = Shown::begin(global, "fetched");
    let (place, how) = ((directory, &backups.tools), (restore.dry_run, &shown.progress));
    let ended = backup::into_directory(&target, &manifest, identities, place, how).await;
    shown.end().await;
    let prepared = ended?;
    let place = directory.display().to_string();
    if global.json {
        let said = json!({
            "id": manifest.id, "into": place, "done": !restore.dry_run, "owner": prepared.owner,
            "statements": prepared.statements,
        });
        return json_of(&said, out);
    }
    if restore.dry_run {
        return Ok(out.text(&format!("backup {} can be unpacked into {place}\n", manifest.id))?);
    }
    let mut text = format!(
        "backup {} is in {place}: {} of files of {} {}, position {}\n\
         all of them belong to user {}; start a server on them as that user, of this version or newer\n",
        manifest.id,
        amount(manifest.plain_bytes),
        manifest.flavor,
        manifest.version,
        manifest.position,
        prepared.owner
    );
    for statement in prepared.statements {
        text.push_str(&format!("then run there, before it replicates: {statement};\n"));
    }
    Ok(out.text(&text)?)
}

/// What a backup holds before it is packed.
fn content(method: manifest::Method) -> &'static str {
    if method.is_physical() { "files" } else { "SQL" }
}

fn configured<'a>(
    config: &'a Config,
    name: &str,
) -> Result<(&'a ClusterConfig, &'a Backups), Failed> {
    let Some(cluster) = config.clusters.iter().find(|it| it.spec.name.as_str() == name) else {
        let known: Vec<&str> = config.clusters.iter().map(|it| it.spec.name.as_str()).collect();
        let known = known.join(", ");
        return Err(Failed::Refused(format!("there is no cluster {name:?}; there is {known}")));
    };
    let Some(backups) = &cluster.backups else {
        let text = format!("{name} has no backups in the configuration; write backups: targets");
        return Err(Failed::Refused(text));
    };
    Ok((cluster, backups))
}

fn open(backups: &Backups, name: Option<&str>) -> Result<Target, Failed> {
    let fits = |target: &&crate::config::backups::Target| name.is_none_or(|it| it == target.name);
    let Some(declared) = backups.targets.iter().find(fits) else {
        let known: Vec<&str> = backups.targets.iter().map(|it| it.name.as_str()).collect();
        let (name, known) = (name.unwrap_or_default(), known.join(", "));
        return Err(Failed::Refused(format!("there is no target {name:?}; there is {known}")));
    };
    Target::open(declared, backups.part_size).map_err(|error| Failed::Refused(error.to_string()))
}

async fn found(config: &Config, named: &BackupNamed) -> Result<(Target, Manifest), Failed> {
    let (cluster, backups) = configured(config, &named.cluster)?;
    let target = open(backups, named.target.as_deref())?;
    let manifest = backup::manifest(&target, &cluster.spec.name, &named.backup).await?;
    Ok((target, manifest))
}

fn identities(file: Option<&Path>) -> Result<Identities, Failed> {
    let read = file.map(Identities::read).transpose();
    Ok(read.map_err(BackupError::from)?.unwrap_or_default())
}

/// The server to restore into, if there is to be one.
fn destination<'a>(
    restore: &BackupRestore,
    backups: &'a Backups,
) -> Result<Option<Destination<'a>>, Failed> {
    let (Some(into), Some(user), Some(file)) =
        (&restore.into, &restore.user, &restore.password_file)
    else {
        return Ok(None);
    };
    let address: Result<Endpoint, _> = into.parse();
    let address = address.map_err(|error| Failed::Usage(error.to_string()))?;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MOST_PASSWORD).read_to_string(&mut text))
        .map_err(|error| Failed::Usage(format!("cannot read {}: {error}", file.display())))?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    let account = Account { user: user.clone(), password: Secret::new(text) };
    Ok(Some(Destination { address, account, tools: &backups.tools }))
}

/// Ends when somebody wants this process to end.
fn stopped() -> Result<impl Future<Output = ()>, Failed> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// One line on the terminal that says how far it is.
struct Shown {
    progress: watch::Sender<Progress>,
    screen: Option<JoinHandle<()>>,
}

impl Shown {
    fn begin(global: &Global, word: &'static str) -> Shown {
        let progress = watch::Sender::new(Progress::default());
        let wanted = io::stderr().is_terminal() && !global.json;
        let seen = progress.subscribe();
        let screen = wanted.then(|| tokio::spawn(repeat(seen, word)));
        Shown { progress, screen }
    }

    async fn end(self) {
        if let Some(screen) = self.screen {
            screen.abort();
            let _ = screen.await;
            // Nothing can be done when even standard error is closed.
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

async fn repeat(seen: watch::Receiver<Progress>, word: &'static str) {
    let clock = Clock::start();
    let begun = clock.now().moment;
    loop {
        tokio::time::sleep(LOOK).await;
        let line = line_of(*seen.borrow(), word, begun, clock.now().moment);
        let _ = write!(io::stderr(), "\r\u{1b}[K{line}");
    }
}

fn line_of(progress: Progress, word: &str, begun: Moment, now: Moment) -> String {
    let seconds = now.since(begun).as_secs_f64().max(0.001);
    let rate = progress.plain as f64 / seconds;
    let mut line = format!("{} read", amount(progress.plain));
    if let Some(total) = progress.total.filter(|total| *total > progress.plain) {
        line.push_str(&format!(" of about {}", amount(total)));
        let left = (total - progress.plain) as f64;
        if rate > 1.0 {
            line.push_str(&format!(", {:.0} s left", left / rate));
        }
    }
    line.push_str(&format!(", {} {word}, {:.1} MB/s", amount(progress.stored), rate / 1e6));
    line
}

fn listed(catalog: &Catalog, width: u16) -> String {
    let mut text = format!("{} at {}\n", catalog.cluster, catalog.target);
    if catalog.backups.is_empty() {
        text.push_str("no backups\n");
    } else {
        let header = ["BACKUP", "SERVER", "KIND", "TOOK", "STORED", "PLAIN", "ENCRYPTED"];
        let mut rows = table(&header, width);
        for entry in &catalog.backups {
            rows.add_row(row(entry));
        }
        text.push_str(&plain(&rows));
    }
    for bad in &catalog.unusable {
        text.push_str(&format!("! {}: {}\n", bad.object, bad.why));
    }
    text
}

fn row(entry: &Entry) -> Vec<String> {
    vec![
        entry.id.to_string(),
        entry.server.to_string(),
        entry.method.to_string(),
        format!("{} s", entry.ended.0.saturating_sub(entry.begun.0).div_ceil(1000)),
        amount(entry.bytes),
        amount(entry.plain_bytes),
        if entry.encrypted { "yes" } else { "no" }.to_owned(),
    ]
}

fn described(manifest: &Manifest) -> String {
    let encrypted = match manifest.encrypted_to.as_slice() {
        [] => "no".to_owned(),
        keys => format!("to {}", keys.join(", ")),
    };
    let lines = [
        ("backup", manifest.id.to_string()),
        ("of", format!("{}, server {}", manifest.cluster, manifest.server)),
        ("made with", format!("{} ({})", manifest.tool, manifest.method)),
        ("server", format!("{} {}", manifest.flavor, manifest.version)),
        ("begun", manifest.begun.to_string()),
        ("ended", manifest.ended.to_string()),
        ("schemas", manifest.schemas.join(", ")),
        ("position", manifest.position.to_string()),
        (content(manifest.method), format!("{} bytes", manifest.plain_bytes)),
        ("stored", format!("{} bytes in {} part(s)", manifest.bytes, manifest.parts.len())),
        ("object", manifest.object.clone()),
        ("sha256", manifest.sha256.to_string()),
        ("encrypted", encrypted),
    ];
    let text: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    text + &left_out(manifest)
}

fn left_out(manifest: &Manifest) -> String {
    match manifest.accounts_left_out.as_slice() {
        [] => String::new(),
        names => format!("! accounts that the server could not tell: {}\n", names.join(", ")),
    }
}

/// Bytes for people.
fn amount(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}

fn json_of(value: &impl Serialize, out: &mut Output) -> Result<(), Failed> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|error| Failed::Internal(format!("failed to write JSON: {error}")))?;
    Ok(out.raw(&text)?)
}

impl From<BackupError> for Failed {
    fn from(error: BackupError) -> Failed {
        let text = error.to_string();
        match error {
            BackupError::Identity(IdentityError::Unfit(_)) => Failed::Refused(text),
            BackupError::Identity(_) => Failed::Usage(text),
            _ => Failed::Refused(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_progress_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1_250, "1.2 kB"), (16_777_216, "16.7 MB")]
        {
            assert_eq!(amount(bytes), text);
        }
        let progress = Progress { plain: 10_000_000, stored: 2_000_000, total: Some(30_000_000) };
        let (begun, now) = (Moment(0), Moment(2_000_000));
        let line = line_of(progress, "stored", begun, now);
        let expected = "10.0 MB read of about 30.0 MB, 4 s left, 2.0 MB stored, 5.0 MB/s";
        assert_eq!(line, expected);
    }
}
