//! What a target holds, told from its manifests alone.

use super::manifest::{Manifest, ManifestError, Method};
use super::names::BackupId;
use crate::clock::WallTime;
use crate::decision::gtid::Gtids;
use crate::decision::topology::{ClusterName, ServerName};
use serde::{Deserialize, Serialize};

/// The backups of one cluster at one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// The cluster.
    pub cluster: ClusterName,
    /// The target's name.
    pub target: String,
    /// Those that are there, the newest first.
    pub backups: Vec<Entry>,
    /// Manifests that cannot be used, with what is wrong.
    pub unusable: Vec<Unusable>,
}

/// One backup at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub id: BackupId,
    /// The server whose data it is.
    pub server: ServerName,
    /// How it was made.
    pub method: Method,
    /// When it was begun.
    pub begun: WallTime,
    /// When its last part was stored.
    pub ended: WallTime,
    /// How many bytes are stored.
    pub bytes: u64,
    /// How many bytes of SQL, or of files, these are.
    pub plain_bytes: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Every transaction that is in it.
    pub position: Gtids,
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unusable {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
}

impl Catalog {
    /// A catalog without a backup.
    pub fn new(cluster: ClusterName, target: String) -> Catalog {
        Catalog { cluster, target, backups: Vec::new(), unusable: Vec::new() }
    }

    /// Takes in one more manifest, as it was found under that name.
    pub fn add(&mut self, object: &str, read: Result<Manifest, ManifestError>) {
        match read {
            Ok(manifest) => {
                let entry = Entry::of(&manifest);
                let at = self.backups.partition_point(|other| other.begun > entry.begun);
                self.backups.insert(at, entry);
            }
            Err(error) => {
                let why = error.to_string();
                self.unusable.push(Unusable { object: object.to_owned(), why });
            }
        }
    }

    /// The newest backup.
    pub fn latest(&self) -> Option<&Entry> {
        self.backups.first()
    }
}

impl Entry {
    /// What the manifest says, at a glance.
    pub fn of(manifest: &Manifest) -> Entry {
        Entry {
            id: manifest.id.clone(),
            server: manifest.server.clone(),
            method: manifest.method,
            begun: manifest.begun,
            ended: manifest.ended,
            bytes: manifest.bytes,
            plain_bytes: manifest.plain_bytes,
            encrypted: !manifest.encrypted_to.is_empty(),
            position: manifest.position.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;

    #[test]
    fn the_newest_comes_first_and_what_is_unusable_is_named() {
        let mut catalog = Catalog::new("shop".into(), "local".to_owned());
        for begun in [2_000, 3_000, 1_000] {
            catalog.add("x", Ok(manifest(begun, "db1")));
        }
        catalog.add("shop/manifests/bad.json", Err(ManifestError::TooLarge));
        let begun: Vec<u64> = catalog.backups.iter().map(|entry| entry.begun.0).collect();
        assert_eq!(begun, [3_000, 2_000, 1_000]);
        assert_eq!(catalog.latest().map(|entry| entry.begun.0), Some(3_000));
        assert_eq!(catalog.unusable[0].object, "shop/manifests/bad.json");
    }
}
