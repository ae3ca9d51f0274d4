//! What `latest` means where only backups of one kind can be restored.

use super::Failed;
use super::args::BackupNamed;
use super::backup::{configured, open};
use crate::config::Config;
use crate::decision::backup::manifest::{Kind, Manifest};
use crate::runtime::backup::{self, Target};
use std::io::{self, Write};

/// The backup that is named; one of the other kind that is newer than the latest of this one is told.
pub(super) async fn of_kind(
    config: &Config,
    named: &BackupNamed,
    kind: Kind,
) -> Result<(Target, Manifest), Failed> {
    let (cluster, backups) = configured(config, &named.cluster)?;
    let target = open(backups, named.target.as_deref())?;
    let wanted = (named.backup.as_str(), kind);
    let found = backup::manifest_of_kind(&target, &cluster.spec.name, wanted).await;
    let (manifest, passed_over) = found?;
    if let Some(newer) = passed_over {
        // Nothing can be done when even standard error is closed.
        let _ = writeln!(
            io::stderr(),
            "the latest {kind} backup is {}; {newer} is newer and of the other kind",
            manifest.id
        );
    }
    Ok((target, manifest))
}
