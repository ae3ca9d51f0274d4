//! What happened, as a hash that two runs of one seed must share, and as text for people.

use crate::world::{Event, SECOND};

/// The account of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    pub events: u64,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, print }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Notes that an event happens.
    pub fn mark(&mut self, at: u64, event: &Event) {
        self.events += 1;
        self.mix(at);
        self.mix(kind(event));
        if let Event::Peer { message: regent::watcher::PeerMessage::Raft(bytes), .. } = event {
            self.mix(u64::from(crc32fast::hash(bytes)));
        }
    }

    /// Tells people, if anybody reads it.
    pub fn say(&self, at: u64, text: impl FnOnce() -> String) {
        if self.print {
            let line = format!("{:>3}.{:06} {}\n", at / SECOND, at % SECOND, text());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
}

/// A number per kind of event and whom it concerns.
fn kind(event: &Event) -> u64 {
    let (kind, who) = match event {
        Event::Wakeup { watcher, .. } => (1, *watcher),
        Event::Input { watcher, .. } => (2, *watcher),
        Event::Written { watcher, .. } => (3, *watcher),
        Event::Peer { to, .. } => (4, *to),
        Event::ToProxy { to, .. } => (5, *to),
        Event::FromProxy { to, .. } => (6, *to),
        Event::Probe { server, .. } => (7, *server),
        Event::StepArrives { watcher, .. } => (8, *watcher),
        Event::StepGoesOn { .. } => (9, 0),
        Event::ServerTick { server } => (10, *server),
        Event::Acknowledged { source, .. } => (11, *source),
        Event::ProxyTick { proxy } => (12, *proxy),
        Event::Close { proxy, .. } => (13, *proxy),
        Event::Client { proxy, .. } => (14, *proxy),
        Event::WriteArrives { .. } => (15, 0),
        Event::WriteReplied { .. } => (16, 0),
        Event::WriteTimesOut { .. } => (17, 0),
        Event::Fault => (18, 0),
        Event::Undo(_) => (19, 0),
        Event::Request { watcher } => (20, *watcher),
        Event::Look => (21, 0),
        Event::Flap { server, .. } => (22, *server),
        Event::BackupStored { watcher, .. } => (23, *watcher),
        Event::ReplaceData => (24, 0),
    };
    kind * 64 + who as u64
}
