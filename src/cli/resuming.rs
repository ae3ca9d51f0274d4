//! Restoring into a server so that whatever breaks off can be gone on with.

use super::Failed;
use super::backup::stopped;
use crate::decision::backup::manifest::Manifest;
use crate::runtime::backup::{
    self, BackupError, Destination, Identities, Progress, Restored, Target, Wish,
};
use tokio::sync::watch;

/// What a command line that goes on does not repeat; true where a value follows.
const NOT_AGAIN: &[(&str, bool)] =
    &[("--overwrite", true), ("--resume", false), ("--dry-run", false)];
/// Behind these, `latest` is no backup.
const MOMENTS: &[&str] = &["--to-time"];

/// Restores until it is done, fails, or somebody stops it. What broke off is told with what goes on with it,
/// which is this command again where nothing else is given.
pub(super) async fn into_server(
    from: (&Target, &Manifest),
    identities: &Identities,
    (destination, wish): (&Destination<'_>, &Wish<'_>),
    progress: &watch::Sender<Progress>,
    again: Option<&str>,
) -> Result<Restored, Failed> {
    let stop = stopped()?;
    let own = command(&from.1.id.to_string());
    let again = again.unwrap_or(&own);
    tokio::select! {
        ended = backup::into_server(from, identities, destination, wish, progress) => {
            ended.map_err(|error| told(error, again))
        }
        () = stop => {
            Err(Failed::Refused(format!("stopped on request; to go on with it: {again}")))
        }
    }
}

fn told(error: BackupError, again: &str) -> Failed {
    match &error {
        // Nothing is to be gone on with where the backup is another one.
        BackupError::Incomplete { error: inner, .. }
            if !matches!(**inner, BackupError::NotEmpty(_)) =>
        {
            Failed::Refused(format!("{error}; to go on with it: {again}"))
        }
        _ => error.into(),
    }
}

/// The backup that is meant: `latest` is the one that a restore left a part of, where it is gone on with.
pub(super) async fn meant(
    (named, resume): (&str, bool),
    destination: Option<&Destination<'_>>,
) -> Result<String, Failed> {
    if let (Some(destination), true) = (destination, resume && named == "latest")
        && let Some(noted) = backup::broken_off(destination).await?
    {
        return Ok(noted);
    }
    Ok(named.to_owned())
}

/// The command line that goes on with what this one began.
pub(super) fn command(backup: &str) -> String {
    let given: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    line(&given, backup)
}

fn line(given: &[String], backup: &str) -> String {
    let mut words = vec!["regent".to_owned()];
    let (mut value, mut moment) = (false, false);
    for word in given {
        let flag = word.split('=').next().unwrap_or_default();
        if std::mem::take(&mut value) {
            continue;
        }
        if let Some((_, takes)) = NOT_AGAIN.iter().find(|(name, _)| *name == flag) {
            value = *takes && flag == word;
            continue;
        }
        let is_backup = word == "latest" && !moment;
        moment = MOMENTS.contains(&word.as_str());
        words.push(quoted(if is_backup { backup } else { word }));
    }
    words.push("--resume".to_owned());
    words.join(" ")
}

/// A command line of `regent` with these words.
pub(super) fn joined(words: impl Iterator<Item = String>) -> String {
    words.fold("regent".to_owned(), |line, word| format!("{line} {}", quoted(&word)))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_command_goes_on_with_the_same_backup() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let given =
            "backup restore shop latest --into db9:3306 --overwrite db2 --to-time latest --dry-run";
        let expected = "regent backup restore shop X-db2 --into db9:3306 --to-time latest --resume";
        assert_eq!(line(&words(given), "X-db2"), expected);
        let given = ["--overwrite=db2", "--resume", "it's here", "X-db1"].map(str::to_owned);
        assert_eq!(line(&given, "X-db2"), "regent 'it'\\''s here' X-db1 --resume");
    }
}
