//! Reads `backups`: where they go, what protects them, and the programs that make them.

use super::agents::Agents;
use super::binlogs::{Binlogs, binlogs};
use super::credentials::{account, secret};
use super::fields::{BACKUPS, S3, TARGET, TOOLS};
use super::proofs::{Verify, checksums, verify};
use super::reader::{Field, Reading, Section};
use super::schedules::{Scheduled, keep, schedules};
use super::secret::Secret;
use super::storing::{ObjectLock, Storing, object_lock, request_limit, storing};
use super::tree::Kind;
use super::{Account, values};
use crate::decision::backup::retention::Retention;
use crate::decision::topology::{ServerName, ServerSpec};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// S3 takes no smaller part, unless it is the last one.
const SMALLEST_PART: u64 = 5 << 20;
/// Whole parts are held in memory.
const LARGEST_PART: u64 = 512 << 20;
const USUAL_PART: u64 = 16 << 20;
const USUAL_COMPRESSION: u32 = 3;

/// How a cluster is backed up.
#[derive(Clone, Debug)]
pub struct Backups {
    /// Where backups go; the first is used where none is named.
    pub targets: Vec<Target>,
    /// How they are made where nobody says.
    pub method: Method,
    /// The age public keys that backups are encrypted to; none leaves them readable.
    pub encrypt_to: Vec<String>,
    /// How hard zstd tries, 1 to 19.
    pub compression: i32,
    /// How many bytes are sent, and checked, at a time.
    pub part_size: u64,
    /// The account that reads the data; the monitor's where there is none.
    pub account: Option<Account>,
    /// How the binary log is archived.
    pub binlogs: Binlogs,
    /// The programs.
    pub tools: Tools,
    /// What is done while a target does not take what it is sent.
    pub storing: Storing,
    /// Whether tables are counted, so that a restored server can be compared.
    pub checksums: bool,
    /// How backups are proven.
    pub verify: Verify,
    /// When they are taken without anybody asking.
    pub schedules: Vec<Scheduled>,
    /// How many of each schedule stay; all when nothing is said.
    pub keep: Option<Retention>,
}

impl Backups {
    /// The targets whose backups are proven: those that schedules write to, or else the one that is used where
    /// none is named.
    pub fn proven_targets(&self) -> Vec<String> {
        let scheduled = self.schedules.iter().flat_map(|it| &it.targets);
        let first = self.targets.first().filter(|_| self.schedules.is_empty()).map(|it| &it.name);
        let all: BTreeSet<&String> = scheduled.chain(first).collect();
        all.into_iter().cloned().collect()
    }

    /// Where files are copied, the schedules take servers that have an agent only.
    pub(super) fn read_through(&mut self, agents: &Agents) {
        let only = self.method.beside(agents);
        for scheduled in &mut self.schedules {
            scheduled.declared.wish.only.clone_from(&only);
        }
    }
}

/// How a backup is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The server is read over the network, as SQL.
    #[default]
    Logical,
    /// The agent beside the server copies its files.
    Physical,
}

impl Method {
    /// The servers that can be backed up this way, when that are not all.
    pub fn beside(self, agents: &Agents) -> Option<BTreeSet<ServerName>> {
        match self {
            Method::Logical => None,
            Method::Physical => Some(agents.keys().cloned().collect()),
        }
    }
}

/// Where backups go.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, unique within the cluster.
    pub name: String,
    /// What it is.
    pub place: Place,
}

/// A kind of target.
#[derive(Clone, Debug)]
pub enum Place {
    /// A directory of the machine that makes the backup.
    Folder(PathBuf),
    /// A bucket of S3, or of a server that speaks its protocol.
    S3(S3Place),
}

/// Where in which S3.
#[derive(Clone, Debug)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// What every object's name begins with, without slashes at its ends.
    pub prefix: String,
    /// The region.
    pub region: String,
    /// The server, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// The storage class of the data.
    pub storage_class: Option<String>,
    /// Who asks; the environment says it where this does not.
    pub keys: Option<S3Keys>,
    /// The profile of the shared credentials file that says who asks.
    pub profile: Option<String>,
    /// How long a request may take, for each 16 MiB begun.
    pub request_limit: Duration,
    /// How long nobody may change or remove what was stored.
    pub object_lock: Option<ObjectLock>,
}

/// A pair of keys for S3.
#[derive(Clone, Debug)]
pub struct S3Keys {
    /// The public one.
    pub access_key: String,
    /// The secret one.
    pub secret_key: Secret,
}

/// Programs that are not to be looked for.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// MySQL's `mysqldump`.
    pub mysqldump: Option<PathBuf>,
    /// MySQL's `mysql`.
    pub mysql: Option<PathBuf>,
    /// MariaDB's `mariadb-dump`.
    pub mariadb_dump: Option<PathBuf>,
    /// MySQL's `mysqlbinlog`.
    pub mysqlbinlog: Option<PathBuf>,
    /// MariaDB's `mariadb`.
    pub mariadb: Option<PathBuf>,
    /// MariaDB's `mariadb-backup`.
    pub mariadb_backup: Option<PathBuf>,
    /// MariaDB's `mbstream`.
    pub mbstream: Option<PathBuf>,
    /// Percona's `xtrabackup`; where it is named it is used for MySQL instead of the server's CLONE.
    pub xtrabackup: Option<PathBuf>,
    /// Percona's `xbstream`.
    pub xbstream: Option<PathBuf>,
    /// MariaDB's `mariadb-binlog`.
    pub mariadb_binlog: Option<PathBuf>,
}

/// Reads how a cluster is backed up; an empty list, as in former versions, says that it is not. Its
/// servers are those that could be read, when these are all.
pub(super) fn backups(
    reading: &mut Reading<'_>,
    cluster: &Section<'_>,
    servers: Option<&[ServerSpec]>,
) -> Option<Backups> {
    let field = reading.optional(cluster, "backups")?;
    if matches!(&field.node.kind, Kind::List(items) if items.is_empty()) {
        return None;
    }
    let section = reading.section(&field, BACKUPS)?;
    let targets = targets(reading, &section);
    let words = [("logical", Method::Logical), ("physical", Method::Physical)];
    let method =
        reading.optional(&section, "method").and_then(|field| reading.choice(&field, &words));
    let encrypt_to = encrypt_to(reading, &section);
    let leaves = targets.iter().any(|target| matches!(target.place, Place::S3(_)));
    if leaves && !section.has("encrypt_to") {
        let what = "backups leave for S3 unencrypted; name age public keys in encrypt_to";
        reading.warn(section.at, &section.path, what.to_owned());
    }
    let compression = match reading.optional(&section, "compression") {
        Some(field) => reading.integer(&field, 1..=19).unwrap_or(USUAL_COMPRESSION),
        None => USUAL_COMPRESSION,
    };
    let part_size = reading
        .optional(&section, "part_size")
        .and_then(|field| part_size(reading, &field))
        .unwrap_or(USUAL_PART);
    let account = match section.has("account") {
        true => Some(account(reading, &section, "account")?),
        false => None,
    };
    let binlogs = binlogs(reading, &section, &targets);
    let tools = tools(reading, &section);
    let schedules = schedules(reading, &section, &targets, servers);
    let keep = keep(reading, &section);
    if keep.is_none() && !schedules.is_empty() {
        let what =
            "scheduled backups are never removed; say how many stay, such as keep: { days: 7 }";
        reading.warn(section.at, &section.path, what.to_owned());
    }
    let compression = i32::try_from(compression).unwrap_or_default();
    let storing = storing(reading, &section);
    let (checksums, verify) = (checksums(reading, &section), verify(reading, &section));
    if verify.proving.is_some() && verify.identity.is_none() && !encrypt_to.is_empty() {
        let what = "backups are encrypted, and verify.identity names no file with a secret key to prove them with";
        reading.warn(section.at("verify"), &section.path_of("verify"), what.to_owned());
    }
    Some(Backups {
        targets,
        method: method.unwrap_or_default(),
        encrypt_to,
        compression,
        part_size,
        account,
        binlogs,
        tools,
        storing,
        checksums,
        verify,
        schedules,
        keep,
    })
}

fn targets(reading: &mut Reading<'_>, section: &Section<'_>) -> Vec<Target> {
    let example = "a list such as [ { name: local, folder: /var/backups/regent } ]";
    let Some(field) = reading.need(section, "targets", example) else {
        return Vec::new();
    };
    let items = reading.list(&field);
    if matches!(&field.node.kind, Kind::List(items) if items.is_empty()) {
        reading.wrong(&field, format!("is empty; write {example}"));
    }
    let mut names = BTreeSet::new();
    items.iter().filter_map(|item| target(reading, item, &mut names)).collect()
}

fn target(
    reading: &mut Reading<'_>,
    item: &Field<'_>,
    names: &mut BTreeSet<String>,
) -> Option<Target> {
    let section = reading.section(item, TARGET)?;
    let name = reading.need(&section, "name", "local").and_then(|field| {
        let name = reading.name(&field)?;
        if !names.insert(name.clone()) {
            let what = format!("target {} is there already; give each its own", field.shown());
            reading.wrong(&field, what);
        }
        Some(name)
    });
    let place = match (section.has("folder"), section.has("s3")) {
        (true, false) => {
            let field = reading.optional(&section, "folder")?;
            let folder = reading.text(&field)?;
            if folder.is_empty() {
                reading.wrong(&field, "is empty; write /var/backups/regent".to_owned());
            }
            Some(Place::Folder(reading.base.join(folder)))
        }
        (false, true) => {
            let field = reading.optional(&section, "s3")?;
            s3(reading, &field).map(Place::S3)
        }
        _ => {
            let what =
                "is either a folder or in s3; write folder: DIRECTORY or s3: { bucket: NAME }";
            reading.error(section.at, &section.path, what.to_owned());
            None
        }
    };
    Some(Target { name: name?, place: place? })
}

fn s3(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<S3Place> {
    let section = reading.section(field, S3)?;
    let bucket = reading.need(&section, "bucket", "shop-backups").and_then(|field| {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let right = "3 to 63 lower-case letters, digits, - or .";
        let fits = |text: &str| (3..=63).contains(&text.len()) && text.bytes().all(plain);
        checked(reading, &field, right, fits)
    });
    let mut optional = |name: &str, right: &str, fits: fn(&str) -> bool| {
        let field = reading.optional(&section, name)?;
        checked(reading, &field, right, fits)
    };
    let right = "a path such as regent/shop, of letters, digits, / - _ . =";
    let prefix = optional("prefix", right, is_prefix).unwrap_or_default();
    let region = optional("region", "the name of a region, such as eu-west-1", is_word);
    let right = "http://HOST:PORT or https://HOST, without a path";
    let endpoint = optional("endpoint", right, is_origin);
    let right = "a class that the server knows, such as STANDARD_IA";
    let storage_class = optional("storage_class", right, is_word);
    let profile = optional("profile", "the name of a profile, such as backups", is_word);
    let keys = keys(reading, &section);
    if keys.is_some() && section.has("profile") {
        let what = "has both access_key and profile; keep one of them".to_owned();
        reading.error(section.at("profile"), &section.path, what);
    }
    let request_limit = request_limit(reading, &section);
    let object_lock = object_lock(reading, &section);
    Some(S3Place {
        bucket: bucket?,
        prefix: prefix.trim_matches('/').to_owned(),
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        endpoint,
        storage_class,
        keys,
        profile,
        request_limit,
        object_lock,
    })
}

fn keys(reading: &mut Reading<'_>, section: &Section<'_>) -> Option<S3Keys> {
    let said = ["access_key", "secret_key", "secret_key_file"].iter().any(|it| section.has(it));
    if !said || reading.secrets_elsewhere {
        return None;
    }
    let access_key = reading
        .need(section, "access_key", "${S3_ACCESS_KEY}")
        .and_then(|field| checked(reading, &field.hidden(), "the key's public half", is_key));
    let secret_key = secret(reading, section, ["secret_key", "secret_key_file"]);
    Some(S3Keys { access_key: access_key?, secret_key: secret_key? })
}

fn encrypt_to(reading: &mut Reading<'_>, section: &Section<'_>) -> Vec<String> {
    let Some(field) = reading.optional(section, "encrypt_to") else {
        return Vec::new();
    };
    let items = reading.list(&field);
    if matches!(&field.node.kind, Kind::List(items) if items.is_empty()) {
        let what = "is empty; name at least one age public key, or remove it to encrypt nothing";
        reading.wrong(&field, what.to_owned());
    }
    let right = "an age public key, as `age-keygen -y FILE` prints it: age1...";
    let is_recipient = |text: &str| text.parse::<age::x25519::Recipient>().is_ok();
    // A secret key put here by mistake must not be shown.
    let found = items.iter().filter_map(|item| {
        let said = reading.text(item)?;
        if said.to_uppercase().starts_with("AGE-SECRET-KEY") {
            let what =
                "a secret key stands here; write its public key, age1..., and make a new pair";
            reading.wrong(item, what.to_owned());
            return None;
        }
        checked(reading, item, right, is_recipient)
    });
    found.collect()
}

fn tools(reading: &mut Reading<'_>, section: &Section<'_>) -> Tools {
    let Some(field) = reading.optional(section, "tools") else {
        return Tools::default();
    };
    let Some(section) = reading.section(&field, TOOLS) else {
        return Tools::default();
    };
    let mut path = |name: &str| {
        let field = reading.optional(&section, name)?;
        Some(reading.base.join(reading.text(&field)?))
    };
    Tools {
        mysqldump: path("mysqldump"),
        mysql: path("mysql"),
        mysqlbinlog: path("mysqlbinlog"),
        mariadb_dump: path("mariadb_dump"),
        mariadb: path("mariadb"),
        mariadb_backup: path("mariadb_backup"),
        mbstream: path("mbstream"),
        xtrabackup: path("xtrabackup"),
        xbstream: path("xbstream"),
        mariadb_binlog: path("mariadb_binlog"),
    }
}

fn part_size(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<u64> {
    let found = match &field.node.kind {
        Kind::Text(_) => values::size(&reading.text(field)?),
        _ => None,
    };
    let fits = found.filter(|bytes| (SMALLEST_PART..=LARGEST_PART).contains(bytes));
    if fits.is_none() {
        let what = format!("{} will not do; write 5MiB to 512MiB", field.shown());
        reading.wrong(field, what);
    }
    fits
}

/// A text that fits, or a mistake that says what would be right.
fn checked(
    reading: &mut Reading<'_>,
    field: &Field<'_>,
    right: &str,
    fits: impl Fn(&str) -> bool,
) -> Option<String> {
    let text = reading.text(field)?;
    if fits(&text) {
        return Some(text);
    }
    reading.wrong(field, format!("{} will not do; write {right}", field.shown()));
    None
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn is_prefix(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.=".contains(&byte);
    let steps = |part: &str| part == "." || part == ".." || part.is_empty();
    let inside = text.trim_matches('/');
    (1..=512).contains(&inside.len()) && text.bytes().all(plain) && !inside.split('/').any(steps)
}

fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    rest.is_some_and(|host| (1..=255).contains(&host.len()) && host.bytes().all(plain))
}

fn is_key(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_from_others() {
        for (text, fits) in [
            ("regent/shop", true),
            ("/regent/", true),
            ("a/../b", false),
            ("", false),
            ("a//b", false),
        ] {
            assert_eq!(is_prefix(text), fits, "{text:?}");
        }
        for (text, fits) in [
            ("http://127.0.0.1:9000", true),
            ("https://s3.example.org", true),
            ("s3.example.org", false),
            ("https://user:pass@host", false),
            ("https://host/path", false),
        ] {
            assert_eq!(is_origin(text), fits, "{text:?}");
        }
    }
}
