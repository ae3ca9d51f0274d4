//! Links on the peer port: to and from the other watchers, and from proxies.
//!
//! A watcher sends on the links it dialed and listens on those it accepted. Messages between
//! watchers may be lost: while a link is down, or when its queue is full, the oldest goes first.

use crate::config::WatcherSpec;
use crate::decision::lease::{FromProxy, ToProxy};
use crate::decision::topology::{Endpoint, ProxyName, WatcherName};
use crate::watcher::{Input, PeerMessage};
use crate::wire::{
    Frame, FrameReader, FrameWriter, Hello, Kind, Role, WireError, be_greeted, fingerprint, greet,
};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const GREETING_LIMIT: Duration = Duration::from_secs(2);
/// A peer that takes nothing for so long is as good as gone.
const STALL_LIMIT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const QUEUED_MESSAGES: usize = 2048;
const QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// Frames are written together up to this size.
const WRITTEN_TOGETHER: usize = 256 * 1024;
/// Proxies and watchers connected to this one.
const INCOMING_LINKS: usize = 1_000;
const PROXY_QUEUE: usize = 64;
const LONGEST_NAME: usize = 128;

/// All links of one watcher; they end with the token given to [`Peers::start`].
#[derive(Debug)]
pub struct Peers {
    outgoing: BTreeMap<WatcherName, Arc<Outbox>>,
    proxies: Arc<Proxies>,
    address: SocketAddr,
}

impl Peers {
    /// Listens at `own`'s peer address, and keeps a link to each of the other `watchers`.
    ///
    /// What arrives goes into `inbox`; while that is full, nothing more is read.
    pub async fn start(
        own: &WatcherName,
        watchers: &[WatcherSpec],
        inbox: mpsc::Sender<Input>,
        stop: CancellationToken,
    ) -> io::Result<Peers> {
        let undeclared = || io::Error::new(io::ErrorKind::NotFound, "this watcher is not declared");
        let spec = watchers.iter().find(|spec| &spec.id == own).ok_or_else(undeclared)?;
        let listener = TcpListener::bind((spec.peer.host.as_str(), spec.peer.port)).await?;
        let fleet = fingerprint(watchers.iter().map(|spec| &spec.id));
        let hello = Hello::new(Role::Watcher, own.as_str(), fleet);
        let proxies = Arc::new(Proxies::default());
        let others: Vec<_> = watchers.iter().filter(|spec| &spec.id != own).collect();
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk {
            hello: hello.clone(),
            known: others.iter().map(|spec| spec.id.clone()).collect(),
            proxies: Arc::clone(&proxies),
            inbox: inbox.clone(),
            stop: stop.clone(),
        });
        tokio::spawn(accept_all(listener, desk));
        let mut outgoing = BTreeMap::new();
        for spec in others {
            let outbox = Arc::new(Outbox::default());
            outgoing.insert(spec.id.clone(), Arc::clone(&outbox));
            let dialer = Dialer {
                peer: spec.id.clone(),
                address: spec.peer.clone(),
                hello: hello.clone(),
                outbox,
                inbox: inbox.clone(),
            };
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(dialer.keep()).await });
        }
        Ok(Peers { outgoing, proxies, address })
    }

    /// Sends to another watcher; lost when the link is down.
    pub fn send(&self, to: &WatcherName, message: PeerMessage) {
        if let Some(outbox) = self.outgoing.get(to) {
            outbox.push(message);
        }
    }

    /// Sends to a proxy; lost when it is not connected here, or takes nothing.
    pub fn to_proxy(&self, to: &ProxyName, message: ToProxy) {
        if let Some(seat) = self.proxies.seats().get(to) {
            // A proxy that does not read its queue renews in vain and asks again.
            let _ = seat.queue.try_send(message);
        }
    }

    /// Sends to all proxies that are connected here.
    pub fn to_proxies(&self, message: &ToProxy) {
        for seat in self.proxies.seats().values() {
            let _ = seat.queue.try_send(message.clone());
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Messages waiting for a link that is up.
#[derive(Debug, Default)]
struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    up: bool,
    messages: VecDeque<PeerMessage>,
    bytes: usize,
}

impl Outbox {
    fn push(&self, message: PeerMessage) {
        let mut queue = lock(&self.queue);
        if !queue.up {
            return;
        }
        queue.bytes += weight(&message);
        queue.messages.push_back(message);
        while queue.messages.len() > QUEUED_MESSAGES || queue.bytes > QUEUED_BYTES {
            let Some(oldest) = queue.messages.pop_front() else {
                break;
            };
            queue.bytes = queue.bytes.saturating_sub(weight(&oldest));
        }
        drop(queue);
        self.filled.notify_one();
    }

    fn pop(&self) -> Option<PeerMessage> {
        let mut queue = lock(&self.queue);
        let message = queue.messages.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(weight(&message));
        Some(message)
    }

    fn set_up(&self, up: bool) {
        *lock(&self.queue) = Queue { up, ..Queue::default() };
    }
}

fn weight(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Raft(bytes) => bytes.len() + 64,
        _ => 1024,
    }
}

/// Keeps the link to one watcher.
struct Dialer {
    peer: WatcherName,
    address: Endpoint,
    hello: Hello,
    outbox: Arc<Outbox>,
    inbox: mpsc::Sender<Input>,
}

impl Dialer {
    async fn keep(self) {
        let mut pause = FIRST_PAUSE;
        let mut told = String::new();
        loop {
            let problem = match self.connect().await {
                Ok((reader, writer)) => {
                    info!(peer = %self.peer, "linked to watcher");
                    pause = FIRST_PAUSE;
                    told.clear();
                    self.tell(true).await;
                    let ended = self.carry(reader, writer).await;
                    self.outbox.set_up(false);
                    self.tell(false).await;
                    ended.err().unwrap_or(WireError::Truncated)
                }
                Err(problem) => problem,
            };
            let problem = problem.to_string();
            if problem != told {
                warn!(peer = %self.peer, address = %self.address, %problem, "no link to watcher");
                told = problem;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(
        &self,
    ) -> Result<(FrameReader<OwnedReadHalf>, FrameWriter<OwnedWriteHalf>), WireError> {
        let address = (self.address.host.as_str(), self.address.port);
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await.map_err(late)??;
        let (mut reader, mut writer) = split(stream)?;
        let greeted = greet(&mut reader, &mut writer, &self.hello);
        let theirs = timeout(GREETING_LIMIT, greeted).await.map_err(late)??;
        if theirs.role != Role::Watcher || theirs.name != self.peer.as_str() {
            let found = format!("{} {:?} answers there", theirs.role, theirs.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, found).into());
        }
        Ok((reader, writer))
    }

    async fn carry(
        &self,
        mut reader: FrameReader<OwnedReadHalf>,
        mut writer: FrameWriter<OwnedWriteHalf>,
    ) -> Result<(), WireError> {
        loop {
            while let Some(message) = self.outbox.pop() {
                writer.add(&frame_of(message)?)?;
                if writer.pending() >= WRITTEN_TOGETHER {
                    break;
                }
            }
            if writer.pending() > 0 {
                timeout(STALL_LIMIT, writer.flush()).await.map_err(late)??;
                continue;
            }
            tokio::select! {
                () = self.outbox.filled.notified() => {}
                // Nothing is expected on this side; it only shows that the link ended.
                frame = reader.next() => if frame?.is_none() { return Ok(()) },
            }
        }
    }

    async fn tell(&self, up: bool) {
        if up {
            self.outbox.set_up(true);
        }
        // A closed inbox means that this watcher is ending.
        let _ = self.inbox.send(Input::PeerLink { peer: self.peer.clone(), up }).await;
    }
}

/// What all accepted links share.
struct Desk {
    hello: Hello,
    known: Vec<WatcherName>,
    proxies: Arc<Proxies>,
    inbox: mpsc::Sender<Input>,
    stop: CancellationToken,
}

impl Desk {
    fn welcomes(&self, theirs: &Hello) -> bool {
        match theirs.role {
            Role::Watcher => self.known.iter().any(|name| name.as_str() == theirs.name),
            Role::Proxy => !theirs.name.is_empty() && theirs.name.len() <= LONGEST_NAME,
        }
    }

    async fn serve(&self, stream: TcpStream) -> Result<(), WireError> {
        let (mut reader, mut writer) = split(stream)?;
        let greeted =
            be_greeted(&mut reader, &mut writer, &self.hello, |theirs| self.welcomes(theirs));
        let theirs = timeout(GREETING_LIMIT, greeted).await.map_err(late)??;
        match theirs.role {
            Role::Watcher => self.hear_watcher(WatcherName(theirs.name), reader).await,
            Role::Proxy => self.serve_proxy(ProxyName(theirs.name), reader, writer).await,
        }
    }

    async fn hear_watcher(
        &self,
        from: WatcherName,
        mut reader: FrameReader<OwnedReadHalf>,
    ) -> Result<(), WireError> {
        while let Some(frame) = reader.next().await? {
            let message = match frame.kind {
                Kind::RAFT => PeerMessage::Raft(frame.payload.to_vec()),
                Kind::PEER => match frame.parse()? {
                    // Raft has a kind of its own; as JSON it would be many times larger.
                    PeerMessage::Raft(_) => continue,
                    message => message,
                },
                // A chore that this version does not know is another watcher's.
                Kind::CHORE => match frame.parse() {
                    Ok(message) => PeerMessage::Chore(message),
                    Err(_) => continue,
                },
                _ => continue,
            };
            let input = Input::PeerMessage { from: from.clone(), message };
            if self.inbox.send(input).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn serve_proxy(
        &self,
        proxy: ProxyName,
        mut reader: FrameReader<OwnedReadHalf>,
        mut writer: FrameWriter<OwnedWriteHalf>,
    ) -> Result<(), WireError> {
        let (seat, mut queue) = self.proxies.sit_down(&proxy, self.stop.child_token());
        let _leaves = seat.clone().drop_guard();
        loop {
            tokio::select! {
                () = seat.cancelled() => return Ok(()),
                message = queue.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    let sent = writer.send_json(Kind::PROXY, &message);
                    timeout(STALL_LIMIT, sent).await.map_err(late)??;
                }
                frame = reader.next() => {
                    let Some(frame) = frame? else { return Ok(()) };
                    if frame.kind != Kind::PROXY {
                        continue;
                    }
                    let message: FromProxy = frame.parse()?;
                    let input = Input::ProxyMessage { proxy: proxy.clone(), message };
                    if self.inbox.send(input).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The connected proxies; a newer link of one name takes the place of the older.
#[derive(Debug, Default)]
struct Proxies(Mutex<BTreeMap<ProxyName, Seat>>);

#[derive(Debug)]
struct Seat {
    queue: mpsc::Sender<ToProxy>,
    ends: CancellationToken,
}

impl Proxies {
    fn sit_down(
        &self,
        proxy: &ProxyName,
        ends: CancellationToken,
    ) -> (CancellationToken, mpsc::Receiver<ToProxy>) {
        let (queue, receiver) = mpsc::channel(PROXY_QUEUE);
        let mut seats = self.seats();
        seats.retain(|_, seat| !seat.ends.is_cancelled());
        let seat = Seat { queue, ends: ends.clone() };
        if let Some(older) = seats.insert(proxy.clone(), seat) {
            older.ends.cancel();
        }
        (ends, receiver)
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<ProxyName, Seat>> {
        lock(&self.0)
    }
}

async fn accept_all(listener: TcpListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(INCOMING_LINKS));
    let stop = desk.stop.clone();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely; at full speed this would only spin.
                warn!(%error, "failed to accept a link");
                sleep(LONGEST_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            warn!(%address, "too many links; one more was closed");
            continue;
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let served = desk.stop.run_until_cancelled(desk.serve(stream)).await;
            if let Some(Err(problem)) = served {
                warn!(%address, %problem, "a link ended");
            }
            drop(place);
        });
    }
}

type Halves = (FrameReader<OwnedReadHalf>, FrameWriter<OwnedWriteHalf>);

fn split(stream: TcpStream) -> Result<Halves, WireError> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&stream);
    let alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&alive)?;
    socket.set_tcp_user_timeout(Some(STALL_LIMIT))?;
    let (reader, writer) = stream.into_split();
    Ok((FrameReader::new(reader), FrameWriter::new(writer, Role::Watcher.limit())))
}

fn frame_of(message: PeerMessage) -> Result<Frame, WireError> {
    match message {
        PeerMessage::Raft(bytes) => Ok(Frame { kind: Kind::RAFT, payload: bytes.into() }),
        // Watchers of former versions pass over kinds of frames that they do not know.
        PeerMessage::Chore(message) => Frame::json(Kind::CHORE, &message),
        message => Frame::json(Kind::PEER, &message),
    }
}

fn late(_: tokio::time::error::Elapsed) -> WireError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// Nothing that holds one of these locks can leave it half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
