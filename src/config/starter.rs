//! What `regent init DIR` writes: a configuration to start from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The configuration that [`write()`] writes.
pub const TEXT: &str = include_str!("starter.yaml");

const CONFIG: &str = "regent.yaml";
const SECRETS: [&str; 2] = ["secrets/monitor.password", "secrets/replication.password"];

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
pub enum StarterError {
    /// Nothing was written.
    #[error("{0} exists already; name another directory or move the file away")]
    Exists(PathBuf),
    /// The file system refused.
    #[error("cannot write {path}: {source}")]
    Io {
        /// What was to be written.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// Writes a commented `regent.yaml` and two random passwords below `directory`, and returns the
/// files it wrote. Touches no file that exists: then it refuses before it writes anything.
pub fn write(directory: &Path) -> Result<Vec<PathBuf>, StarterError> {
    for name in SECRETS.iter().chain([&CONFIG]) {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(StarterError::Exists(path));
        }
    }
    let secrets = directory.join("secrets");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StarterError::Io { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    if !secrets.is_dir() {
        fs::DirBuilder::new().mode(0o700).create(&secrets).map_err(failed(&secrets))?;
    }
    let mut written = Vec::new();
    for name in SECRETS {
        let path = directory.join(name);
        random_password()
            .and_then(|password| write_new(&path, 0o600, &password))
            .map_err(failed(&path))?;
        written.push(path);
    }
    let path = directory.join(CONFIG);
    write_new(&path, 0o644, TEXT).map_err(failed(&path))?;
    written.push(path);
    Ok(written)
}

fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// 128 random bits as text, with what password policies usually ask for.
fn random_password() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text = String::from("Rg-");
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    Ok(text)
}
