//! `regent backup`: works on this machine and asks no watcher.

use super::Failed;
use super::args::{BackupMethod, BackupNamed, BackupNow, BackupOrder, BackupRestore, Global};
use super::making_way::Hearing;
use super::output::{Output, plain, table};
use super::{archive, latest, proof, recovery, restoring, resuming, retention, unpacking};
use crate::clock::{Clock, Moment};
use crate::config::backups::{Backups, Method};
use crate::config::secret::Secret;
use crate::config::{Account, ClusterConfig, Config};
use crate::decision::backup::catalog::{Catalog, Entry};
use crate::decision::backup::manifest::{self, Kind, Manifest};
use crate::decision::backup::proof::How;
use crate::decision::topology::Endpoint;
use crate::runtime::backup::{
    self, BackupError, Destination, Identities, IdentityError, Order, Progress, Restored, Stage,
    Taken, Target,
};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
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
    let config = &configuration(global)?;
    match order {
        BackupOrder::Now(now) => take(global, config, now, out).await,
        BackupOrder::List { cluster, target } => {
            list(global, config, (cluster.as_deref(), target.as_deref()), out).await
        }
        BackupOrder::Show(named) => show(global, config, named, out).await,
        BackupOrder::Verify { named, restore, identity } => {
            let how = if *restore { How::Restored } else { How::Read };
            proof::verify(global, config, (named, how, identity.as_deref()), out).await
        }
        BackupOrder::Restore(restore) => match recovery::until(&restore.moment)? {
            Some(until) if restore.data_dir.is_some() => {
                unpacking::to_moment(global, config, (restore, until), out).await
            }
            Some(until) => recovery::recover(global, config, (restore, until), out).await,
            None => bring_back(global, config, restore, out).await,
        },
        BackupOrder::Archive { cluster, target } => {
            archive::archive(global, config, (cluster, target.as_deref()), out).await
        }
        BackupOrder::Prune(prune) => retention::prune(global, config, prune, out).await,
        BackupOrder::Remove(order) => retention::remove(global, config, order, out).await,
        BackupOrder::Hold(hold) => retention::hold(global, config, hold, out).await,
    }
}

/// The configuration, which all work on this machine needs.
pub(super) fn configuration(global: &Global) -> Result<Config, Failed> {
    let missing = || Failed::Usage("--config is missing; name the configuration file".to_owned());
    let path = global.config.as_deref().ok_or_else(missing)?;
    let loaded = Config::load(path).map_err(|errors| Failed::Usage(errors.to_string()))?;
    Ok(loaded.config)
}

async fn take(
    global: &Global,
    config: &Config,
    now: &BackupNow,
    out: &mut Output,
) -> Result<(), Failed> {
    let (cluster, backups) = configured(config, &now.cluster)?;
    let targets = targets(backups, now)?;
    let method = now.method.map_or(backups.method, |method| match method {
        BackupMethod::Logical => Method::Logical,
        BackupMethod::Physical => Method::Physical,
    });
    let source = match &now.server {
        Some(name) => backup::named(cluster, config.timing, name).await?,
        None => backup::choose(cluster, config.timing, method).await?,
    };
    let (targets, source) = (targets.as_slice(), &source);
    let security = config.security.as_ref();
    let agent = backup::agent_for(method, security, cluster, &source.server.name)?;
    let (agent, clock) = (agent.as_ref(), Clock::start());
    let hearing = Hearing::begin(global, &cluster.spec.name);
    let turn = &hearing.turn;
    let order = Order { cluster, backups, source, targets, agent, clock, run: None, turn };
    let shown = Shown::begin(global, "stored");
    let stop = stopped()?;
    // What runs beside it, such as a watcher or the server that is read, goes first.
    backup::step_back();
    let taken = backup::take(&order, &shown.progress, stop).await;
    shown.end().await;
    let taken = taken?;
    // Nothing can be done when even standard error is closed.
    let _ = write!(io::stderr(), "{}", proof::doubts(&taken.manifest));
    told(global, &taken, targets, out)?;
    let each = taken.lacking.iter().map(|it| format!("not at {}: {}", it.target, it.error));
    let each: Vec<String> = each.collect();
    if each.is_empty() { Ok(()) } else { Err(Failed::Refused(each.join("; "))) }
}

/// Shows a backup that was taken, and which targets have it.
fn told(
    global: &Global,
    taken: &Taken,
    targets: &[Target],
    out: &mut Output,
) -> Result<(), Failed> {
    let manifest = &taken.manifest;
    let lacks = |name: &str| taken.lacking.iter().find(|lacking| lacking.target == name);
    if global.json {
        let state = |target: &Target| match lacks(&target.name) {
            Some(it) => {
                json!({ "target": it.target, "stored": false, "why": it.error.to_string() })
            }
            None => json!({ "target": target.name, "stored": true }),
        };
        let mut shown = manifest.clone();
        shown.unknown.insert("targets".to_owned(), targets.iter().map(state).collect());
        return json_of(&shown, out);
    }
    let having = targets.iter().map(|target| target.name.as_str());
    let having: Vec<&str> = having.filter(|name| lacks(name).is_none()).collect();
    let text = format!(
        "backup {} of {} is at {}: {} stored, {} of {} from {}\n{}",
        manifest.id,
        manifest.cluster,
        having.join(", "),
        amount(manifest.bytes),
        amount(manifest.plain_bytes),
        content(manifest.method),
        manifest.server,
        left_out(manifest)
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
                let catalog = backup::catalog(&target, &cluster.spec.name).await?;
                catalogs.push(archive::with_recovery(&target, catalog).await?);
            }
        }
    }
    if global.json {
        return json_of(&catalogs, out);
    }
    if catalogs.is_empty() {
        return Ok(out.text("no backups are configured\n")?);
    }
    let text = |it: &archive::Listed| listed(&it.catalog, out.width) + &it.described();
    let texts: Vec<String> = catalogs.iter().map(text).collect();
    Ok(out.text(&texts.join("\n"))?)
}

async fn show(
    global: &Global,
    config: &Config,
    named: &BackupNamed,
    out: &mut Output,
) -> Result<(), Failed> {
    let (target, manifest) = found(config, named).await?;
    let proof = backup::proof(&target, &manifest).await;
    if global.json {
        return json_of(&proof::Judged::new(&manifest, proof?.as_ref()), out);
    }
    Ok(out.text(&(described(&manifest) + &proof::described(&manifest, &proof)))?)
}

async fn bring_back(
    global: &Global,
    config: &Config,
    restore: &BackupRestore,
    out: &mut Output,
) -> Result<(), Failed> {
    let identities = identities(restore.identity.as_deref())?;
    let (cluster, backups) = configured(config, &restore.named.cluster)?;
    if let Some(directory) = &restore.data_dir {
        let place = (directory.as_path(), &identities);
        return unpacking::into_directory(global, config, (restore, place), out).await;
    }
    let destination = destination(restore, backups)?;
    let wish = restoring::wish(global, restore, (cluster, config.timing)).await?;
    let meant = (restore.named.backup.as_str(), restore.moment.resume);
    let backup = resuming::meant(meant, destination.as_ref()).await?;
    let named = BackupNamed { backup, ..restore.named.clone() };
    let (target, manifest) = latest::of_kind(config, &named, Kind::Logical).await?;
    let shown = Shown::begin(global, "fetched");
    let progress = &shown.progress;
    let (place, ended) = match (&destination, &restore.file) {
        (Some(destination), _) => {
            let (from, by) = ((&target, &manifest), &identities);
            let server = (destination, &wish);
            let ended = resuming::into_server(from, by, server, progress, None).await;
            (destination.address.to_string(), ended)
        }
        (None, Some(file)) => {
            let ended = backup::into_file(&target, &manifest, &identities, file, progress).await;
            (file.display().to_string(), ended.map(|()| Restored::default()).map_err(Failed::from))
        }
        (None, None) => {
            return Err(Failed::Usage("name a server with --into, or a --file".to_owned()));
        }
    };
    shown.end().await;
    let Restored { refused, says } = ended?;
    if global.json {
        let (id, done) = (&manifest.id, !restore.dry_run);
        let said = json!({
            "id": id, "into": place, "done": done, "refused": refused, "steps": says,
            "bytes": manifest.bytes, "plain_bytes": manifest.plain_bytes,
        });
        return json_of(&said, out);
    }
    if restore.dry_run {
        let can = format!("backup {} can be restored into {place}; it would\n", manifest.id);
        return Ok(out.text(&says.iter().fold(can, |text, step| format!("{text}- {step}\n")))?);
    }
    let mut text = format!(
        "backup {} is in {place}: {} of SQL, position {}\n",
        manifest.id,
        amount(manifest.plain_bytes),
        manifest.position
    );
    if restore.follow {
        text.push_str("it follows the primary, read-only\n");
    }
    for statement in refused {
        text.push_str(&format!("! refused there, mend it by hand: {statement}\n"));
    }
    Ok(out.text(&text)?)
}

/// What a backup holds before it is packed.
pub(super) fn content(method: manifest::Method) -> &'static str {
    if method.is_physical() { "files" } else { "SQL" }
}

pub(super) fn configured<'a>(
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

pub(super) fn open(backups: &Backups, name: Option<&str>) -> Result<Target, Failed> {
    let fits = |target: &&crate::config::backups::Target| name.is_none_or(|it| it == target.name);
    let Some(declared) = backups.targets.iter().find(fits) else {
        let known: Vec<&str> = backups.targets.iter().map(|it| it.name.as_str()).collect();
        let (name, known) = (name.unwrap_or_default(), known.join(", "));
        return Err(Failed::Refused(format!("there is no target {name:?}; there is {known}")));
    };
    Target::open(declared, backups).map_err(|error| Failed::Refused(error.to_string()))
}

/// Where a backup goes: to those that are named, each once, or to the first.
fn targets(backups: &Backups, now: &BackupNow) -> Result<Vec<Target>, Failed> {
    let mut names: Vec<&str> = match now.all_targets {
        true => backups.targets.iter().map(|it| it.name.as_str()).collect(),
        false => now.target.iter().map(String::as_str).collect(),
    };
    if names.is_empty() {
        return Ok(vec![open(backups, None)?]);
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    names.into_iter().map(|name| open(backups, Some(name))).collect()
}

pub(super) async fn found(
    config: &Config,
    named: &BackupNamed,
) -> Result<(Target, Manifest), Failed> {
    let (cluster, backups) = configured(config, &named.cluster)?;
    let target = open(backups, named.target.as_deref())?;
    let manifest = backup::manifest(&target, &cluster.spec.name, &named.backup).await?;
    Ok((target, manifest))
}

pub(super) fn identities(file: Option<&Path>) -> Result<Identities, Failed> {
    let read = file.map(Identities::read).transpose();
    Ok(read.map_err(BackupError::from)?.unwrap_or_default())
}

/// The server to restore into, if there is to be one.
pub(super) fn destination<'a>(
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
    let account = account(user, file)?;
    Ok(Some(Destination { address, account, tools: &backups.tools }))
}

/// An account, with the password that a file holds.
pub(super) fn account(user: &str, file: &Path) -> Result<Account, Failed> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MOST_PASSWORD).read_to_string(&mut text))
        .map_err(|error| Failed::Usage(format!("cannot read {}: {error}", file.display())))?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(Account { user: user.to_owned(), password: Secret::new(text) })
}

/// Ends when somebody wants this process to end.
pub(super) fn stopped() -> Result<impl Future<Output = ()>, Failed> {
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
pub(super) struct Shown {
    pub(super) progress: watch::Sender<Progress>,
    screen: Option<JoinHandle<()>>,
}

impl Shown {
    pub(super) fn begin(global: &Global, word: &'static str) -> Shown {
        let progress = watch::Sender::new(Progress::default());
        let wanted = io::stderr().is_terminal() && !global.json;
        let seen = progress.subscribe();
        let screen = wanted.then(|| tokio::spawn(repeat(seen, word)));
        Shown { progress, screen }
    }

    pub(super) async fn end(self) {
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
        let line = line_of(&seen.borrow(), word, begun, clock.now().moment);
        let _ = write!(io::stderr(), "\r\u{1b}[K{line}");
    }
}

fn line_of(progress: &Progress, word: &str, begun: Moment, now: Moment) -> String {
    let elapsed = now.since(begun);
    let rate = progress.rate(elapsed);
    let mut line = format!("{} read", amount(progress.plain));
    if let Some(total) = progress.total.filter(|total| *total > progress.plain) {
        line.push_str(&format!(" of about {}", amount(total)));
        if let Some(left) = progress.left(elapsed) {
            line.push_str(&format!(", {:.0} s left", left.as_secs_f64()));
        }
    }
    line.push_str(&format!(", {} {word}, {:.1} MB/s", amount(progress.stored), rate / 1e6));
    line.push_str(match progress.stage {
        Stage::Counting => ", counting tables",
        Stage::Finishing => ", finishing",
        Stage::Beginning | Stage::Reading | Stage::Sending => "",
    });
    for reached in &progress.targets {
        let name = &reached.target;
        if reached.spooled > 0 {
            line.push_str(&format!("; {} spooled for {name}", amount(reached.spooled)));
        }
        if reached.failed.is_some() {
            line.push_str(&format!("; {name} failed"));
        } else if let Some(trouble) = &reached.trouble {
            line.push_str(&format!("; {name} retried since {}", trouble.since));
        }
    }
    line
}

fn listed(catalog: &Catalog, width: u16) -> String {
    let mut text = format!("{} at {}\n", catalog.cluster, catalog.target);
    if catalog.backups.is_empty() {
        text.push_str("no backups\n");
    } else {
        let header = ["BACKUP", "SERVER", "KIND", "TOOK", "STORED", "PLAIN", "ENCRYPTED", "PROOF"];
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
        entry.proof.to_string(),
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
pub(super) fn amount(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}

pub(super) fn json_of(value: &impl Serialize, out: &mut Output) -> Result<(), Failed> {
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
    use crate::clock::WallTime;
    use crate::runtime::backup::{Reached, Trouble};

    #[test]
    fn amounts_and_progress_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1_250, "1.2 kB"), (16_777_216, "16.7 MB")]
        {
            assert_eq!(amount(bytes), text);
        }
        let mut progress = Progress::default();
        (progress.plain, progress.stored, progress.total) =
            (10_000_000, 2_000_000, Some(30_000_000));
        let (begun, now) = (Moment(0), Moment(2_000_000));
        let line = line_of(&progress, "stored", begun, now);
        let expected = "10.0 MB read of about 30.0 MB, 4 s left, 2.0 MB stored, 5.0 MB/s";
        assert_eq!(line, expected);
        let mut far = Reached { target: "far".to_owned(), spooled: 5_000, ..Reached::default() };
        far.trouble = Some(Trouble { since: WallTime(0), what: "status 503".to_owned() });
        progress.targets.push(far);
        let line = line_of(&progress, "stored", begun, now);
        let rest = "; 5.0 kB spooled for far; far retried since 1970-01-01T00:00:00.000Z";
        assert_eq!(line.strip_prefix(expected), Some(rest));
    }
}
