//! What is known of one backup. Written last; without it there is no backup.

use super::counts::Counts;
use super::names::{self, BackupId};
use super::runs::Attempt;
use crate::clock::WallTime;
use crate::decision::cluster::Unknown;
use crate::decision::gtid::Gtids;
use crate::decision::topology::{ClusterName, Flavor, ServerName, Version};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The newest format that this version writes and reads.
pub const FORMAT: u32 = 1;
/// No manifest is larger; ten thousand parts need a fifth of it.
pub const MOST_BYTES: usize = 8 << 20;
/// The most parts that S3 takes for one object.
pub const MOST_PARTS: usize = 10_000;
/// The largest part: whole parts are held in memory.
pub const LARGEST_PART: u64 = 1 << 30;

/// All that is known of one backup, without which its data is worth nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which version of this form it has.
    pub format: u32,
    /// The backup's name.
    pub id: BackupId,
    /// The cluster.
    pub cluster: ClusterName,
    /// The server whose data it is.
    pub server: ServerName,
    /// How it was made.
    #[serde(default)]
    pub method: Method,
    /// The server's product.
    pub flavor: Flavor,
    /// The server's version.
    pub version: Version,
    /// Every transaction that is in it; a server restored from it goes on replicating from there. What CLONE
    /// copied may hold a few more, and the server that is started on it knows which.
    pub position: Gtids,
    /// Where that is not known exactly: nothing is in it beside these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Gtids>,
    /// The program that read the data, as it names itself.
    pub tool: String,
    /// When it was begun.
    pub begun: WallTime,
    /// When all of it had been read.
    pub ended: WallTime,
    /// The schemas in it.
    pub schemas: Vec<String>,
    /// The server's `lower_case_table_names`, which says what names mean.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub lower_case_table_names: u8,
    /// How the files of a copy are laid out, which a server must be told before it is started on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub innodb: Option<Innodb>,
    /// Accounts that the server could not tell, and that are therefore missing.
    #[serde(default)]
    pub accounts_left_out: Vec<String>,
    /// How many bytes of SQL, or of files, it has.
    pub plain_bytes: u64,
    /// Up to this byte of the SQL there is data; accounts and their grants follow, a statement a line. Files
    /// hold the accounts themselves.
    pub accounts_at: u64,
    /// The public keys it was encrypted to; empty when it is not encrypted.
    #[serde(default)]
    pub encrypted_to: Vec<String>,
    /// The object that holds the data.
    pub object: String,
    /// How many bytes that object has.
    pub bytes: u64,
    /// The object's checksum, as `sha256sum` tells it.
    pub sha256: Sha256,
    /// The object's parts, one after the other.
    pub parts: Vec<Part>,
    /// What its tables held at its position; absent where nobody wanted that counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Counts>,
    /// The attempt of a scheduled run that made it; absent when somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Attempt>,
    /// What newer versions added.
    #[serde(flatten)]
    pub unknown: Unknown,
}

fn is_usual(lower_case_table_names: &u8) -> bool {
    *lower_case_table_names == 0
}

/// What a server cannot find out from a copy of InnoDB's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Innodb {
    /// `innodb_page_size`.
    pub page_size: u32,
    /// `innodb_data_file_path`.
    pub data_file_path: String,
    /// `innodb_undo_tablespaces`, where the product wants to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_tablespaces: Option<u32>,
}

impl Innodb {
    /// Whether a server may be started with it: what stands in a manifest names no other file of the machine.
    pub fn is_plain(&self) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:;-".contains(c);
        let path = &self.data_file_path;
        let named = (1..=500).contains(&path.len()) && path.chars().all(plain);
        named && self.page_size.is_power_of_two() && (1 << 12..=1 << 16).contains(&self.page_size)
    }
}

/// What a backup is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQL.
    Logical,
    /// The server's files.
    Physical,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Logical => "logical",
            Kind::Physical => "physical",
        })
    }
}

/// How a backup is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// SQL that makes the data anew.
    #[default]
    Logical,
    /// The server's files, as `mariadb-backup` streams them.
    PhysicalMariadbBackup,
    /// The server's files, as MySQL's CLONE copies them, in a tar archive.
    PhysicalClone,
    /// The server's files, as Percona's `xtrabackup` streams them.
    PhysicalXtrabackup,
}

impl Method {
    /// Whether it is a copy of the server's files.
    pub fn is_physical(self) -> bool {
        self.kind() == Kind::Physical
    }

    /// What it is of.
    pub fn kind(self) -> Kind {
        match self {
            Method::Logical => Kind::Logical,
            Method::PhysicalMariadbBackup | Method::PhysicalClone | Method::PhysicalXtrabackup => {
                Kind::Physical
            }
        }
    }

    /// What the data is before it is compressed, as the end of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Method::Logical => "sql",
            Method::PhysicalMariadbBackup | Method::PhysicalXtrabackup => "xbstream",
            Method::PhysicalClone => "tar",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

/// Consecutive bytes of a backup's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// How many.
    pub bytes: u64,
    /// Their checksum.
    pub sha256: Sha256,
}

/// A SHA-256 checksum, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

/// A text that is no SHA-256 checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 checksum has 64 hexadecimal digits")]
pub struct Sha256Error;

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Sha256 {
    type Err = Sha256Error;

    fn from_str(text: &str) -> Result<Sha256, Sha256Error> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Sha256Error);
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(at * 2..at * 2 + 2).ok_or(Sha256Error)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| Sha256Error)?;
        }
        Ok(Sha256(bytes))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = Sha256Error;

    fn try_from(text: String) -> Result<Sha256, Sha256Error> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(sum: Sha256) -> String {
        sum.to_string()
    }
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not even read.
    #[error("it has more than {MOST_BYTES} bytes, which no manifest has")]
    TooLarge,
    /// Not the JSON of a manifest.
    #[error("it is no manifest: {0}")]
    Unreadable(String),
    /// Of a newer version.
    #[error("it has format {0}, and this version of Regent reads format {FORMAT}; use a newer one")]
    Newer(u32),
    /// It contradicts itself or its name.
    #[error("{0}")]
    Wrong(String),
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Formatted {
    format: u32,
}

impl Manifest {
    /// Reads the manifest of that backup of that cluster, and refuses what does not fit together.
    pub fn read(
        cluster: &ClusterName,
        id: &BackupId,
        bytes: &[u8],
    ) -> Result<Manifest, ManifestError> {
        if bytes.len() > MOST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let unreadable =
            |error: serde_json::Error| ManifestError::Unreadable(cut(&error.to_string()));
        let Formatted { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format > FORMAT {
            return Err(ManifestError::Newer(format));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(unreadable)?;
        match manifest.fault(cluster, id) {
            Some(fault) => Err(ManifestError::Wrong(fault)),
            None => Ok(manifest),
        }
    }

    /// What does not fit together.
    fn fault(&self, cluster: &ClusterName, id: &BackupId) -> Option<String> {
        if &self.cluster != cluster || &self.id != id {
            return Some(format!("it says it is {} of {}", self.id, self.cluster));
        }
        // Only this object is ever read or removed, whatever the manifest says.
        let object = names::data(cluster, id, self.method, !self.encrypted_to.is_empty());
        if self.object != object {
            return Some(format!("its data should be {object}"));
        }
        if let Some(fault) = parts_fault(&self.parts, self.bytes) {
            return Some(fault);
        }
        if self.accounts_at > self.plain_bytes {
            return Some("its accounts begin after its end".to_owned());
        }
        if self.position.flavor() != self.flavor {
            return Some(format!("its position is not one of {}", self.flavor));
        }
        if self.at_most.as_ref().is_some_and(|most| !most.contains(&self.position)) {
            return Some("its position is beyond the most that is in it".to_owned());
        }
        if self.innodb.as_ref().is_some_and(|innodb| !innodb.is_plain()) {
            return Some("what it says of InnoDB's files is nothing that InnoDB says".to_owned());
        }
        None
    }

    /// How it is written down.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| ManifestError::Unreadable(cut(&error.to_string())))?;
        if text.len() > MOST_BYTES { Err(ManifestError::TooLarge) } else { Ok(text) }
    }
}

/// What is wrong with the parts of an object of so many bytes.
pub(super) fn parts_fault(parts: &[Part], whole: u64) -> Option<String> {
    if parts.is_empty() || parts.len() > MOST_PARTS {
        return Some(format!("it has {} parts; 1 to {MOST_PARTS} can be", parts.len()));
    }
    if parts.iter().any(|part| part.bytes == 0 || part.bytes > LARGEST_PART) {
        return Some(format!("one of its parts is empty or has more than {LARGEST_PART} bytes"));
    }
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    (bytes != whole).then(|| format!("its parts have {bytes} bytes and all together {whole}"))
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::decision::backup) fn manifest(begun: u64, server: &str) -> Manifest {
        let (cluster, server) = (ClusterName::from("shop"), ServerName::from(server));
        let id = BackupId::new(WallTime(begun), &server);
        let object = names::data(&cluster, &id, Method::Logical, false);
        let part = Part { bytes: 5, sha256: Sha256([7; 32]) };
        Manifest {
            format: FORMAT,
            id,
            cluster,
            server,
            method: Method::Logical,
            flavor: Flavor::MariaDb,
            version: Version { major: 10, minor: 11, patch: 6 },
            position: Gtids::parse(Flavor::MariaDb, "0-1-7").unwrap(),
            at_most: None,
            tool: "mariadb-dump".to_owned(),
            begun: WallTime(begun),
            ended: WallTime(begun + 1_000),
            schemas: vec!["shop".to_owned()],
            lower_case_table_names: 0,
            innodb: None,
            accounts_left_out: Vec::new(),
            plain_bytes: 40,
            accounts_at: 30,
            encrypted_to: Vec::new(),
            object,
            bytes: 10,
            sha256: Sha256([9; 32]),
            parts: vec![part, part],
            tables: None,
            run: None,
            unknown: Unknown::new(),
        }
    }

    fn read(written: &Manifest) -> Result<Manifest, ManifestError> {
        let sample = manifest(1_000, "db2");
        Manifest::read(&sample.cluster, &sample.id, &written.to_bytes().unwrap())
    }

    #[test]
    fn what_is_written_is_read_with_what_newer_versions_add() {
        let mut written = manifest(1_000, "db2");
        written.unknown.insert("moon".to_owned(), "full".into());
        assert_eq!(read(&written).unwrap(), written);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let changes: [fn(&mut Manifest); 9] = [
            |it| it.format = 2,
            |it| it.object = "shop/data/../../other".to_owned(),
            |it| it.encrypted_to = vec!["age1x".to_owned()],
            |it| it.bytes = 11,
            |it| it.parts.clear(),
            |it| it.parts[0].bytes = 0,
            |it| it.cluster = "other".into(),
            |it| it.accounts_at = 41,
            |it| it.position = Gtids::empty(Flavor::MySql),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut written = manifest(1_000, "db2");
            change(&mut written);
            assert!(read(&written).is_err(), "change {number} was taken");
        }
    }

    #[test]
    fn former_manifests_are_of_logical_backups() {
        let sample = manifest(1_000, "db2");
        let text = String::from_utf8(sample.to_bytes().unwrap()).unwrap();
        let former = text.replace("  \"method\": \"logical\",\n", "");
        assert_ne!(former, text);
        let found = Manifest::read(&sample.cluster, &sample.id, former.as_bytes());
        assert_eq!(found.unwrap(), sample);
    }

    #[test]
    fn a_method_belongs_to_its_object() {
        let mut written = manifest(1_000, "db2");
        written.method = Method::PhysicalClone;
        assert!(read(&written).is_err());
        written.object = written.object.replace(".sql.", ".tar.");
        assert_eq!(read(&written).unwrap(), written);
        let text = String::from_utf8(written.to_bytes().unwrap()).unwrap();
        assert!(text.contains("\"method\": \"physical_clone\""), "{text}");
    }

    #[test]
    fn what_is_told_of_a_copy_fits_together() {
        let mut written = manifest(1_000, "db2");
        written.at_most = Some(Gtids::parse(Flavor::MariaDb, "0-1-9").unwrap());
        let path = "ibdata1:12M:autoextend".to_owned();
        let innodb = Innodb { page_size: 16_384, data_file_path: path, undo_tablespaces: Some(3) };
        written.innodb = Some(innodb.clone());
        assert_eq!(read(&written).unwrap(), written);
        written.at_most = Some(Gtids::parse(Flavor::MariaDb, "0-1-6").unwrap());
        assert!(matches!(read(&written), Err(ManifestError::Wrong(_))));
        written.at_most = None;
        for path in ["", "/etc/passwd:12M", "a b"] {
            written.innodb = Some(Innodb { data_file_path: path.to_owned(), ..innodb.clone() });
            assert!(matches!(read(&written), Err(ManifestError::Wrong(_))), "{path}");
        }
        written.innodb = Some(Innodb { page_size: 1000, ..innodb });
        assert!(matches!(read(&written), Err(ManifestError::Wrong(_))));
    }

    proptest! {
        #[test]
        fn damaged_ones_get_an_answer(at in 0..600_usize, byte in any::<u8>()) {
            let sample = manifest(1_000, "db2");
            let mut bytes = sample.to_bytes().unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            let _ = Manifest::read(&sample.cluster, &sample.id, &bytes);
            bytes.truncate(at);
            prop_assert!(Manifest::read(&sample.cluster, &sample.id, &bytes).is_err());
        }
    }
}
