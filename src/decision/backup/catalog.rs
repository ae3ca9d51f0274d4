//! What a target holds, told from its manifests alone.

use super::manifest::{Kind, Manifest, ManifestError, Method};
use super::names::BackupId;
use super::proof::{Proof, ProofError, Verdict};
use super::runs::Attempt;
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
    /// Manifests and proofs that cannot be used, with what is wrong.
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
    /// When all of it had been read.
    pub ended: WallTime,
    /// How many bytes are stored.
    pub bytes: u64,
    /// How many bytes of SQL, or of files, these are.
    pub plain_bytes: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Every transaction that is in it.
    pub position: Gtids,
    /// Where that is not known exactly: nothing is in it beside these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Gtids>,
    /// What is known of its worth.
    #[serde(default)]
    pub proof: Verdict,
    /// The attempt of a scheduled run that made it; absent when somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Attempt>,
    /// The object that holds its data.
    pub object: String,
}

/// A manifest or a proof that cannot be used.
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

    /// Takes in what is known of a backup's worth, as it was found under that name.
    pub fn judge(&mut self, object: &str, id: &BackupId, read: Result<Proof, ProofError>) {
        match read {
            Ok(proof) => {
                let of = self.backups.iter_mut().filter(|entry| &entry.id == id);
                of.for_each(|entry| entry.proof = proof.verdict());
            }
            Err(error) => {
                let why = error.to_string();
                self.unusable.push(Unusable { object: object.to_owned(), why });
            }
        }
    }

    /// The newest backup, of that kind where one is wanted, that is not known to be worth nothing.
    pub fn latest(&self, kind: Option<Kind>) -> Option<&Entry> {
        let wanted = |entry: &&Entry| kind.is_none_or(|kind| entry.method.kind() == kind);
        self.backups.iter().filter(wanted).find(|entry| !entry.proof.is_failed())
    }

    /// The newer backup of the other kind that somebody who wants the latest of this kind passes over.
    pub fn passed_over(&self, kind: Kind) -> Option<&Entry> {
        self.latest(None).filter(|newest| newest.method.kind() != kind)
    }
}

impl Entry {
    /// Everything that may be in it.
    pub fn most(&self) -> &Gtids {
        self.at_most.as_ref().unwrap_or(&self.position)
    }

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
            at_most: manifest.at_most.clone(),
            proof: Verdict::Unproven,
            run: manifest.run.clone(),
            object: manifest.object.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::super::proof::How;
    use super::super::proof::tests::check;
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
        assert_eq!(catalog.latest(None).map(|entry| entry.begun.0), Some(3_000));
        assert_eq!(catalog.unusable[0].object, "shop/manifests/bad.json");
    }

    #[test]
    fn the_latest_of_a_kind_passes_over_the_other() {
        let mut catalog = Catalog::new("shop".into(), "local".to_owned());
        for begun in [1_000, 2_000, 3_000] {
            catalog.add("x", Ok(manifest(begun, "db1")));
        }
        assert_eq!(catalog.passed_over(Kind::Logical), None);
        assert_eq!(catalog.latest(Some(Kind::Physical)), None);
        catalog.backups[0].method = Method::PhysicalClone;
        let begun = |entry: Option<&Entry>| entry.map(|entry| entry.begun.0);
        assert_eq!(begun(catalog.latest(Some(Kind::Logical))), Some(2_000));
        assert_eq!(begun(catalog.passed_over(Kind::Logical)), Some(3_000));
        assert_eq!(begun(catalog.latest(Some(Kind::Physical))), Some(3_000));
        assert_eq!(catalog.passed_over(Kind::Physical), None);
        catalog.backups[0].proof = Verdict::Failed { at: WallTime(1), why: "torn".to_owned() };
        assert_eq!(catalog.passed_over(Kind::Logical), None, "nobody misses one that failed");
    }

    #[test]
    fn a_proof_belongs_to_its_backup_and_a_bad_one_hides_none() {
        let mut catalog = Catalog::new("shop".into(), "local".to_owned());
        let (old, new) = (manifest(1_000, "db1"), manifest(2_000, "db1"));
        for each in [&old, &new] {
            catalog.add("x", Ok(each.clone()));
        }
        let mut failed = Proof::new("shop".into(), new.id.clone());
        failed.note(How::Read, check(5_000, false));
        catalog.judge("x", &new.id, Ok(failed));
        catalog.judge("shop/proofs/old.json", &old.id, Err(ProofError::TooLarge));
        assert!(catalog.backups[0].proof.is_failed());
        assert_eq!(catalog.latest(None).map(|entry| &entry.id), Some(&old.id));
        assert_eq!(catalog.unusable[0].object, "shop/proofs/old.json");
    }
}
