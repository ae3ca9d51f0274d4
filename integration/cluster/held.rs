//! What scenarios with backups have in common: how they are configured, and programs that wait in the middle of
//! what they do as long as a test holds them.

use crate::stage::{Outcome, Stage};
use regent::demo::servers::accounts::{Account, BACKUP};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a program is held, and where it says that it has come that far.
#[derive(Clone, Copy)]
pub struct Held<'a>(pub &'a Path);

impl Held<'_> {
    /// From now on whoever comes that far waits.
    pub fn hold(self) -> Outcome {
        let _ = std::fs::remove_file(self.begun());
        Ok(std::fs::write(self.held(), "")?)
    }

    pub fn release(self) -> Outcome {
        Ok(std::fs::remove_file(self.held())?)
    }

    /// Waits until a program has come that far, once for each.
    pub async fn reached(self, stage: &Stage, what: &str, patience: Duration) -> Outcome {
        let begun = self.begun();
        let look = async |_: &Stage| std::fs::remove_file(&begun).ok();
        stage.until(what, patience, look).await
    }

    /// A script that takes a program's place: `"$real" "$@"` is that program, and `wait_here` waits.
    pub fn instead_of(self, real: &Path, path: &Path, script: &str) -> Outcome {
        let text = format!(
            "#!/bin/bash
real={real}
case \"$*\" in *--version*) exec \"$real\" \"$@\" ;; esac
wait_here() {{ touch {begun}; while [ -e {held} ]; do sleep 0.05; done; }}
{script}
",
            real = real.display(),
            begun = self.begun().display(),
            held = self.held().display()
        );
        std::fs::write(path, text)?;
        Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
    }

    fn begun(self) -> PathBuf {
        self.0.join("begun")
    }

    fn held(self) -> PathBuf {
        self.0.join("hold")
    }
}

/// Says in the cluster's configuration how it is backed up: into a folder of that place, and what else
/// there is to say.
pub fn configure(stage: &Stage, place: &Path, more: &str) -> Outcome {
    let password = password(BACKUP, place)?;
    let section = format!(
        "    backups:
      targets: [ {{ name: local, folder: {} }} ]
      account: {{ user: {}, password_file: {} }}
{more}",
        place.join("folder").display(),
        BACKUP.user,
        password.display()
    );
    let path = &stage.cluster.configuration;
    Ok(std::fs::write(path, std::fs::read_to_string(path)? + &section)?)
}

/// A file with the password of an account.
pub fn password(account: Account, place: &Path) -> Outcome<PathBuf> {
    let path = place.join(account.user);
    private(&path, account.password)?;
    Ok(path)
}

/// A file that only its owner reads.
pub fn private(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}
