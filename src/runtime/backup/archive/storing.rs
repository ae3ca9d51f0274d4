//! Storing a segment: its data first, its manifest last.

use super::listing::segment;
use super::spool::Spool;
use crate::clock::Clock;
use crate::config::backups::Backups;
use crate::decision::backup::archive::names::{self, SegmentName};
use crate::decision::backup::archive::segment::{FORMAT, Reached, Segment};
use crate::decision::cluster::Unknown;
use crate::decision::gtid::Gtids;
use crate::decision::topology::ClusterName;
use crate::runtime::backup::BackupError;
use crate::runtime::backup::pace::Pace;
use crate::runtime::backup::packing::packing;
use crate::runtime::backup::storing::{Stored, StoringError, cut};
use crate::runtime::backup::target::{Piece, Target, TargetError, Upload};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// What is between packing and storing.
const PIPE: usize = 256 << 10;

/// Where segments go, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub cluster: &'a ClusterName,
    pub backups: &'a Backups,
    pub target: &'a Target,
    pub clock: Clock,
    /// The archiver's own number: what it stores has names of its own.
    pub writer: u32,
}

impl Place<'_> {
    fn failed(&self, error: TargetError) -> BackupError {
        BackupError::Target { target: self.target.name.clone(), error }
    }

    /// Stores what is whole as the segment of that number. A failure leaves nothing that is listed, unless
    /// nobody can tell; then the next attempt finds out.
    pub(super) async fn store(
        &self,
        number: u64,
        spool: &mut Spool,
    ) -> Result<Segment, BackupError> {
        let (first, last, begins) = (spool.first, spool.last, spool.head.begins);
        let name = SegmentName { number, first, last, begins, writer: Some(self.writer) };
        if self.is_there(&name).await? {
            return segment(self.target, self.cluster, &name).await;
        }
        let object = names::data(self.cluster, &name, !self.backups.encrypt_to.is_empty());
        let swept = self.target.sweep(&names::data_of(self.cluster), self.clock.now().wall).await;
        if let Err(error) = swept {
            tracing::debug!(%error, "what former uploads left could not be looked for");
        }
        let begun = self.target.begin(&object).await;
        let upload = begun.map_err(|error| self.failed(error))?;
        let stored = match self.send(spool, &upload).await {
            Ok(stored) => stored,
            Err(error) => {
                abort(&upload, &object).await;
                return Err(error);
            }
        };
        let mut finished = upload.finish().await;
        if finished.is_ok() {
            finished = self.target.holds(&object, stored.bytes).await;
        }
        if let Err(error) = finished {
            // It may have been finished all the same.
            abort(&upload, &object).await;
            self.remove(&object).await;
            return Err(self.failed(error));
        }
        let segment = self.describe((name, object), spool, stored)?;
        let manifest = names::manifest(self.cluster, &segment.name);
        let bytes = segment.to_bytes();
        let bytes =
            bytes.map_err(|error| BackupError::Manifest { object: manifest.clone(), error })?;
        // Storing the data may have taken long.
        if let Err(error) = self.is_there(&segment.name).await {
            self.remove(&segment.object).await;
            return Err(error);
        }
        if let Err(error) = self.target.put(&manifest, Bytes::from(bytes)).await {
            self.withdraw(&segment.name, &segment.object).await;
            return Err(self.failed(error));
        }
        // Of two who looked before either wrote, at least one sees both now.
        match self.is_there(&segment.name).await? {
            true => Ok(segment),
            false => Err(BackupError::Unknown(format!("somebody removed {manifest} at once"))),
        }
    }

    /// Whether that segment of this archiver is there. Where somebody else has stored its number, or a
    /// later one, it is withdrawn: two histories of one archive would fit nowhere.
    async fn is_there(&self, name: &SegmentName) -> Result<bool, BackupError> {
        let folder = names::manifests_of(self.cluster);
        let before = names::before(self.cluster, name.number);
        let listed = self.target.list_after(&folder, &before).await;
        let listed = listed.map_err(|error| self.failed(error))?;
        let stored = listed.iter().filter_map(|object| names::segment_of(self.cluster, object));
        let mut stored: Vec<_> = stored.filter(|it| it.number >= name.number).collect();
        let count = stored.len();
        stored.retain(|it| it != name);
        let own = stored.len() < count;
        let Some(other) = stored.into_iter().next() else { return Ok(own) };
        if own {
            let encrypted = !self.backups.encrypt_to.is_empty();
            self.withdraw(name, &names::data(self.cluster, name, encrypted)).await;
        }
        Err(BackupError::Occupied {
            cluster: self.cluster.to_string(),
            target: self.target.name.clone(),
            segment: other.to_string(),
        })
    }

    /// As long as the manifest may be there, so must the data.
    async fn withdraw(&self, name: &SegmentName, object: &str) {
        if self.remove(&names::manifest(self.cluster, name)).await {
            self.remove(object).await;
        }
    }

    async fn send(&self, spool: &mut Spool, upload: &Upload) -> Result<Stored, BackupError> {
        let (into, from) = tokio::io::duplex(PIPE);
        let (sender, mut pieces) = mpsc::channel::<Piece>(1);
        let pace = Pace::new(self.clock, self.backups.storing.rate_limit);
        let cutting = async move {
            let cut = cut(from, &[sender], self.backups.part_size, pace).await;
            cut.map_err(|error| match error {
                StoringError::Stream(error) => BackupError::io("packing")(error),
                other => BackupError::Unknown(other.to_string()),
            })
        };
        let sending = async {
            while let Some(piece) = pieces.recv().await {
                upload.part(&piece).await.map_err(|error| self.failed(error))?;
            }
            Ok(())
        };
        let ((), stored, ()) = tokio::try_join!(self.pack(spool, into), cutting, sending)?;
        Ok(stored)
    }

    async fn pack(&self, spool: &mut Spool, into: DuplexStream) -> Result<(), BackupError> {
        let packed = packing(into, &self.backups.encrypt_to, self.backups.compression).await;
        let mut packed = packed.map_err(BackupError::io("packing"))?;
        let bytes = spool.bytes();
        let file = spool.rewind().await.map_err(BackupError::io("reading the segment"))?;
        let copied = tokio::io::copy(&mut file.take(bytes), &mut packed).await;
        let copied = copied.map_err(BackupError::io("packing"))?;
        if copied != bytes {
            let what = format!("only {copied} of {bytes} bytes of the segment are on disk");
            return Err(BackupError::Unknown(what));
        }
        packed.shutdown().await.map_err(BackupError::io("packing"))
    }

    fn describe(
        &self,
        (name, object): (SegmentName, String),
        spool: &Spool,
        stored: Stored,
    ) -> Result<Segment, BackupError> {
        let unknown = || BackupError::Unknown("nobody knows where the segment is from".to_owned());
        let origin = spool.origin.clone().ok_or_else(unknown)?;
        Ok(Segment {
            format: FORMAT,
            name,
            cluster: self.cluster.clone(),
            server: origin.server,
            flavor: origin.flavor,
            version: origin.version,
            from: spool.head.from.clone(),
            gtids: spool.gtids.clone(),
            to: spool.to(),
            lost: spool.head.lost.clone(),
            missing: spool.head.missing.clone(),
            transactions: spool.transactions,
            stored: self.clock.now().wall,
            plain_bytes: spool.bytes(),
            encrypted_to: self.backups.encrypt_to.clone(),
            object,
            bytes: stored.bytes,
            sha256: stored.sha256,
            parts: stored.parts,
            unknown: Unknown::new(),
        })
    }

    /// Writes down that all that was committed up to then is archived.
    pub(super) async fn mark(
        &self,
        at: crate::clock::WallTime,
        position: Gtids,
    ) -> Result<(), BackupError> {
        let reached = Reached { format: FORMAT, at, position, unknown: Unknown::new() };
        let object = names::reached(self.cluster);
        let bytes = reached.to_bytes();
        let bytes =
            bytes.map_err(|error| BackupError::Manifest { object: object.clone(), error })?;
        let put = self.target.put(&object, Bytes::from(bytes)).await;
        put.map_err(|error| self.failed(error))
    }

    /// Whether an object is surely gone.
    async fn remove(&self, object: &str) -> bool {
        let removed = self.target.remove(object).await;
        if let Err(error) = &removed {
            tracing::warn!(object, %error, "what is left of a failed segment could not be removed");
        }
        removed.is_ok()
    }
}

async fn abort(upload: &Upload, object: &str) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(object, %error, "what was stored of it could not be removed");
    }
}
