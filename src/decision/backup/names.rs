//! What the objects of a backup are called at a target.
//!
//! ```text
//! CLUSTER/manifests/ID.json          written last: a backup exists when this does
//! CLUSTER/holds/ID.json              while it is there, nobody removes that backup
//! CLUSTER/data/ID.sql.zst[.age]      one file that `age`, `zstd` and `mysql` can read without Regent;
//!                                    `.xbstream` or `.tar` for `mbstream` and `tar` when it is physical
//! CLUSTER/proofs/ID.json             what is known of its worth, once somebody looked
//! ```

use super::manifest::Method;
use crate::clock::WallTime;
use crate::decision::topology::{ClusterName, ServerName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longer ids are nobody's: a moment and a server's name are shorter.
const MOST_ID: usize = 100;

/// A backup's name, unique within its cluster; later ones come later in the order of text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// A text that is no backup's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no backup's id; 'regent backup list' shows them, such as 20261122T164500123Z-db2"
)]
pub struct IdError(String);

impl BackupId {
    /// The id of a backup of that server begun at that moment.
    pub fn new(begun: WallTime, server: &ServerName) -> BackupId {
        let moment: String =
            begun.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        BackupId(format!("{moment}-{server}"))
    }

    /// Reads an id; whatever it is taken from, it leads to no other folder.
    pub fn parse(text: &str) -> Result<BackupId, IdError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !begins || text.len() > MOST_ID || !text.bytes().all(plain) {
            return Err(IdError(text.chars().take(MOST_ID).collect()));
        }
        Ok(BackupId(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for BackupId {
    type Error = IdError;

    fn try_from(text: String) -> Result<BackupId, IdError> {
        BackupId::parse(&text)
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.0
    }
}

/// Where a cluster's manifests are.
pub fn manifests_of(cluster: &ClusterName) -> String {
    format!("{cluster}/manifests/")
}

/// Where the notes are that forbid to remove some of a cluster's backups.
pub fn holds_of(cluster: &ClusterName) -> String {
    format!("{cluster}/holds/")
}

/// The note that forbids to remove a backup.
pub fn hold(cluster: &ClusterName, id: &BackupId) -> String {
    format!("{}{id}.json", holds_of(cluster))
}

/// The backup that a note of this name holds; none for a name that Regent does not give.
pub fn held_by(cluster: &ClusterName, hold: &str) -> Option<BackupId> {
    let name = hold.strip_prefix(&holds_of(cluster))?.strip_suffix(".json")?;
    BackupId::parse(name).ok()
}

/// Where a cluster's data is.
pub fn data_of(cluster: &ClusterName) -> String {
    format!("{cluster}/data/")
}

/// A backup's manifest.
pub fn manifest(cluster: &ClusterName, id: &BackupId) -> String {
    format!("{}{id}.json", manifests_of(cluster))
}

/// A backup's data.
pub fn data(cluster: &ClusterName, id: &BackupId, method: Method, encrypted: bool) -> String {
    let end = if encrypted { ".age" } else { "" };
    format!("{}{id}.{}.zst{end}", data_of(cluster), method.extension())
}

/// Where a cluster's proofs are.
pub fn proofs_of(cluster: &ClusterName) -> String {
    format!("{cluster}/proofs/")
}

/// What is known of a backup's worth.
pub fn proof(cluster: &ClusterName, id: &BackupId) -> String {
    format!("{}{id}.json", proofs_of(cluster))
}

/// The backup that a manifest of this name belongs to; none for a name that Regent does not give.
pub fn id_of(cluster: &ClusterName, manifest: &str) -> Option<BackupId> {
    let name = manifest.strip_prefix(&manifests_of(cluster))?.strip_suffix(".json")?;
    BackupId::parse(name).ok()
}

/// Whether a file in the folder of data is named as Regent names them: a moment, a server, an ending.
pub(super) fn is_data(name: &str) -> bool {
    let moment = name.split('-').next().unwrap_or_default();
    let digits = moment.bytes().filter(u8::is_ascii_digit).count();
    let plain = BackupId::parse(name).is_ok();
    plain && moment.len() == 19 && digits == 17 && moment.ends_with('Z') && name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_ids() {
        let cluster = ClusterName::from("shop");
        let id = BackupId::new(WallTime(1_795_365_900_123), &ServerName::from("db2"));
        assert!(id.as_str().ends_with("123Z-db2"), "{id}");
        assert!(is_data(&format!("{id}.sql.zst")) && !is_data("notes.txt"));
        assert_eq!(id_of(&cluster, &manifest(&cluster, &id)), Some(id.clone()));
        assert_eq!(held_by(&cluster, &hold(&cluster, &id)), Some(id.clone()));
        assert_eq!(held_by(&cluster, &manifest(&cluster, &id)), None);
        assert_eq!(id_of(&cluster, &data(&cluster, &id, Method::Logical, true)), None);
        assert_eq!(id_of(&ClusterName::from("other"), &manifest(&cluster, &id)), None);
        let later = BackupId::new(WallTime(1_795_365_900_124), &ServerName::from("db1"));
        assert!(later > id);
    }

    #[test]
    fn ids_lead_to_no_other_folder() {
        for text in ["", "../x", "a/b", ".hidden", "a b", "a\0b", &"x".repeat(101)] {
            assert!(BackupId::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
