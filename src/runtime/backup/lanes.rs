//! One stream to several targets: each has it whole, or nothing of it, and none hinders the others.

use super::lane::{Lane, abandon};
use super::pace::Pace;
use super::progress::{Progress, Report};
use super::spool::Spool;
use super::target::{Piece, Target, TargetError, Upload};
use crate::clock::Clock;
use crate::decision::backup::manifest::Manifest;
use crate::decision::backup::names;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// With a spool, the dump begins when a target has not answered for so long.
const SOON: Duration = Duration::from_secs(5);

/// A target that has no backup, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Its name.
    pub target: String,
    /// Why.
    pub error: TargetError,
}

/// The targets of one backup, while its parts are sent.
#[derive(Debug)]
pub(super) struct Lanes {
    targets: Vec<Target>,
    progress: watch::Sender<Progress>,
    object: String,
    senders: Vec<mpsc::Sender<Piece>>,
    running: JoinSet<(usize, Result<Arc<Upload>, TargetError>)>,
    /// Those that have every part.
    whole: Vec<(usize, Arc<Upload>)>,
    lacking: Vec<Lacking>,
    stop: CancellationToken,
}

/// What all targets are sent.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    pub object: String,
    pub clock: Clock,
    pub rate_limit: Option<u64>,
    pub spool: Option<Spool>,
}

impl Lanes {
    /// Begins an object at every target. With a spool they need not answer yet.
    pub(super) async fn begin(
        targets: &[Target],
        sending: &Sending,
        progress: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) -> io::Result<Lanes> {
        let mut lanes = Lanes {
            targets: targets.to_vec(),
            progress: progress.clone(),
            object: sending.object.clone(),
            senders: Vec::new(),
            running: JoinSet::new(),
            whole: Vec::new(),
            lacking: Vec::new(),
            stop: stop.child_token(),
        };
        let mut begun = Vec::new();
        for (at, target) in targets.iter().enumerate() {
            let spool = sending.spool.as_ref().filter(|_| target.is_far());
            let waiting = spool.map(|spool| spool.waiting_for(&target.name)).transpose()?;
            let spooled = waiting.is_some();
            let pace = Pace::new(sending.clock, sending.rate_limit);
            let report = Report::of(progress, at);
            let lane = Lane::new(target.clone(), sending.object.clone(), report, pace, waiting);
            let (sender, pieces) = mpsc::channel(1);
            let (ready, is_ready) = oneshot::channel();
            let stop = lanes.stop.clone();
            lanes.running.spawn(async move { (at, lane.run(pieces, ready, stop).await) });
            lanes.senders.push(sender);
            begun.push((spooled, is_ready));
        }
        for (spooled, is_ready) in begun {
            // One that fails drops its word; it is among the lacking later.
            let _ = match spooled {
                true => tokio::time::timeout(SOON, is_ready).await.map_err(|_| ()),
                false => Ok(is_ready.await),
            };
        }
        Ok(lanes)
    }

    /// Where parts go in.
    pub(super) fn senders(&self) -> &[mpsc::Sender<Piece>] {
        &self.senders
    }

    /// Waits until every target has all parts, or failed. No part may come any more.
    pub(super) async fn drain(&mut self) -> Result<(), Vec<Lacking>> {
        self.all_ended().await;
        if self.whole.is_empty() { Err(self.lacking.clone()) } else { Ok(()) }
    }

    async fn all_ended(&mut self) {
        self.senders.clear();
        while let Some(ended) = self.running.join_next().await {
            self.note(ended);
        }
    }

    /// Gives up everywhere. Says which targets had failed before.
    pub(super) async fn abandon(mut self) -> Vec<Lacking> {
        self.stop.cancel();
        self.all_ended().await;
        let object = &self.object;
        futures_util::future::join_all(self.whole.iter().map(|(_, it)| abandon(it, object))).await;
        self.lacking.retain(|lacking| lacking.error != TargetError::Stopped);
        self.lacking
    }

    /// Puts the object in its place everywhere and writes the manifest. Says which targets lack it.
    pub(super) async fn finish(mut self, manifest: &Manifest, bytes: Bytes) -> Vec<Lacking> {
        let mut finishing = JoinSet::new();
        for (at, upload) in std::mem::take(&mut self.whole) {
            let Some(target) = self.targets.get(at) else { continue };
            let report = Report::of(&self.progress, at);
            let target = target.told(report.clone());
            let (manifest, bytes, stop) = (manifest.clone(), bytes.clone(), self.stop.clone());
            finishing.spawn(async move {
                let settled = tokio::select! {
                    biased;
                    () = stop.cancelled() => Err(TargetError::Stopped),
                    settled = settle(&target, &upload, &manifest, bytes) => settled,
                };
                if let Err(error) = &settled {
                    report.failed(error);
                    withdraw(&target, &upload, &manifest).await;
                }
                (target.name, settled)
            });
        }
        while let Some(ended) = finishing.join_next().await {
            if let Ok((target, Err(error))) = ended {
                self.lacking.push(Lacking { target, error });
            }
        }
        self.lacking
    }

    fn note(
        &mut self,
        ended: Result<(usize, Result<Arc<Upload>, TargetError>), tokio::task::JoinError>,
    ) {
        match ended {
            Ok((at, Ok(upload))) => self.whole.push((at, upload)),
            Ok((at, Err(error))) => {
                let target = self.targets.get(at).map(|it| it.name.clone()).unwrap_or_default();
                self.lacking.push(Lacking { target, error });
            }
            // It was neither cancelled nor does it panic.
            Err(error) => tracing::error!(%error, "a target's work was broken off"),
        }
    }
}

/// The backup exists from the moment its manifest does, so what it describes must be there before.
async fn settle(
    target: &Target,
    upload: &Upload,
    manifest: &Manifest,
    bytes: Bytes,
) -> Result<(), TargetError> {
    upload.finish().await?;
    target.holds(&manifest.object, manifest.bytes).await?;
    target.put(&names::manifest(&manifest.cluster, &manifest.id), bytes).await?;
    // Nobody took it for a leftover meanwhile.
    target.holds(&manifest.object, manifest.bytes).await
}

/// Removes what may be there of a backup that could not be finished. As long as its manifest may be there,
/// so must the data.
async fn withdraw(target: &Target, upload: &Upload, manifest: &Manifest) {
    abandon(upload, &manifest.object).await;
    if remove(target, &names::manifest(&manifest.cluster, &manifest.id)).await {
        remove(target, &manifest.object).await;
    }
}

/// Whether an object of a failed backup is surely gone.
async fn remove(target: &Target, object: &str) -> bool {
    let removed = target.remove(object).await;
    if let Err(error) = &removed {
        let target = &target.name;
        tracing::warn!(target, object, %error, "what is left of a failed backup could not be removed");
    }
    removed.is_ok()
}
