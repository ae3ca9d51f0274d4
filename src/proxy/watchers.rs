//! Keeps a link to one watcher: renewals out, grants in.

use super::desk::Desk;
use crate::config::WatcherSpec;
use crate::decision::lease::{FromProxy, ToProxy};
use crate::decision::topology::{Endpoint, WatcherName};
use crate::wire::{self, FrameReader, FrameWriter, Hello, Kind, Role, WireError};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long connecting, greeting, or one write may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause before the first new attempt; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The link to one watcher.
pub(super) struct Link {
    id: WatcherName,
    address: Endpoint,
    hello: Hello,
    desk: Arc<Desk>,
}

impl Link {
    pub(super) fn new(watcher: &WatcherSpec, hello: Hello, desk: Arc<Desk>) -> Link {
        Link { id: watcher.id.clone(), address: watcher.peer.clone(), hello, desk }
    }

    /// Connects again and again, for ever.
    pub(super) async fn keep(self, mut outbox: mpsc::Receiver<FromProxy>) {
        let mut pause = PAUSE;
        let mut said = false;
        loop {
            match timeout(PATIENCE, self.connect()).await.unwrap_or_else(|e| Err(late(e))) {
                Ok((reader, writer)) => {
                    tracing::info!(watcher = %self.id, "linked");
                    (pause, said) = (PAUSE, false);
                    // What waited for the link is old; being linked causes something newer.
                    while outbox.try_recv().is_ok() {}
                    self.desk.drive(|routes, now| routes.on_link(now, &self.id, true));
                    let error = self.talk(reader, writer, &mut outbox).await;
                    self.desk.drive(|routes, now| routes.on_link(now, &self.id, false));
                    tracing::warn!(watcher = %self.id, %error, "link lost");
                }
                Err(error) if !said => {
                    tracing::warn!(watcher = %self.id, %error, "failed to link; trying on");
                    said = true;
                }
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<(Reader, Writer), WireError> {
        let stream = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
        stream.set_nodelay(true)?;
        let (from, into) = stream.into_split();
        let mut reader = FrameReader::new(from);
        let mut writer = FrameWriter::new(into, Role::Proxy.limit());
        let theirs = wire::greet(&mut reader, &mut writer, &self.hello).await?;
        if theirs.role != Role::Watcher || theirs.name != self.id.as_str() {
            let (role, name) = (theirs.role, theirs.name);
            return Err(WireError::NotOurs(wire::Refusal::UnknownName { role, name }));
        }
        Ok((reader, writer))
    }

    async fn talk(
        &self,
        mut reader: Reader,
        mut writer: Writer,
        outbox: &mut mpsc::Receiver<FromProxy>,
    ) -> WireError {
        loop {
            let turn = tokio::select! {
                biased;
                frame = reader.next() => frame.and_then(|frame| self.take(frame)),
                Some(message) = outbox.recv() => {
                    let sending = writer.send_json(Kind::PROXY, &message);
                    timeout(PATIENCE, sending).await.unwrap_or_else(|e| Err(late(e)))
                }
            };
            if let Err(error) = turn {
                return error;
            }
        }
    }

    fn take(&self, frame: Option<wire::Frame>) -> Result<(), WireError> {
        let frame = frame.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        if frame.kind == Kind::PROXY {
            let message: ToProxy = frame.parse()?;
            self.desk.drive(|routes, now| routes.on_message(now, &self.id, message));
        }
        Ok(())
    }
}

type Reader = FrameReader<OwnedReadHalf>;
type Writer = FrameWriter<OwnedWriteHalf>;

fn late(_: tokio::time::error::Elapsed) -> WireError {
    WireError::Io(io::ErrorKind::TimedOut.into())
}
