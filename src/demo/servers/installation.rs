//! Finding a database server's programs on this machine.

use super::{DatabaseFlavor, ServerError};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where one flavour's programs are, and where prepared data directories are kept between runs.
#[derive(Clone, Debug)]
pub struct Installation {
    flavor: DatabaseFlavor,
    server: PathBuf,
    programs: PathBuf,
    base: PathBuf,
    templates: PathBuf,
}

impl Installation {
    /// Looks where `scripts/setup` unpacks servers (`REGENT_SERVERS`, else the user's cache), then in `PATH`.
    pub fn find(flavor: DatabaseFlavor) -> Result<Installation, ServerError> {
        let root = servers_directory();
        let (directory, program) = match flavor {
            DatabaseFlavor::Mysql => ("mysql-9.7", "mysqld"),
            DatabaseFlavor::Mariadb => ("mariadb-10.11", "mariadbd"),
        };
        let templates = root.join("templates");
        let prefix = root.join(directory);
        if prefix.join(".complete").is_file() {
            let programs = prefix.join("programs");
            let server = programs.join(program);
            return Ok(Installation {
                flavor,
                server,
                programs,
                base: prefix.join("usr"),
                templates,
            });
        }
        let server = on_path(program)
            .filter(|path| flavor == DatabaseFlavor::Mariadb || !is_mariadb(path))
            .ok_or(ServerError::NotInstalled { flavor, prefix })?;
        let real = server.canonicalize().unwrap_or_else(|_| server.clone());
        let base = real.ancestors().nth(2).unwrap_or(Path::new("/usr")).to_owned();
        Ok(Installation { flavor, server, programs: base.join("bin"), base, templates })
    }

    /// Which database this is.
    pub fn flavor(&self) -> DatabaseFlavor {
        self.flavor
    }

    /// The server program.
    pub fn server(&self) -> &Path {
        &self.server
    }

    /// The path of a client program, such as `mysqldump` or `mariadb-binlog`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// What the server calls its base directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The directory of prepared data directories, shared by all runs of this user.
    pub(super) fn templates(&self) -> &Path {
        &self.templates
    }
}

fn servers_directory() -> PathBuf {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("REGENT_SERVERS").unwrap_or_else(|| {
        set("XDG_CACHE_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
            .join("regent/servers")
    })
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Distributions install MariaDB under MySQL's name too.
fn is_mariadb(server: &Path) -> bool {
    let resolved = server.canonicalize().unwrap_or_else(|_| server.to_owned());
    resolved.file_name().and_then(OsStr::to_str).is_some_and(|name| name.contains("mariadb"))
        || std::process::Command::new(server)
            .args(["--no-defaults", "--version"])
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("MariaDB"))
}
