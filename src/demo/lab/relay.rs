//! Delay and loss between data centers, for kernels that have none to offer: packets that the router
//! sends here are kept for a while and sent on.

use super::namespace::enter;
use crate::clock::{Clock, Moment};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// No packet is longer.
const LONGEST: usize = 65_536;
/// Held packets beyond that are lost, as in any other queue.
const MOST_HELD: usize = 20_000;
/// How often it looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);
/// IPv4 as the kernel's packet sockets name it.
const IPV4: u16 = 0x0800;
/// Packets are sent as they are, with their own header.
const AS_THEY_ARE: i32 = 255;

/// A thread in the namespace that packets between data centers are routed through.
#[derive(Debug)]
pub(super) struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Delays each packet by `delay` and loses the share `loss` of them.
    pub(super) fn start(network: &Path, delay: Duration, loss: f64) -> io::Result<Relay> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, ready) = mpsc::channel();
        let (network, stopped) = (network.to_owned(), Arc::clone(&stop));
        let work = move || match Ends::open(network) {
            Ok(ends) => {
                let _ = told.send(Ok(()));
                ends.relay(delay, loss, &stopped);
            }
            Err(error) => {
                let _ = told.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(work)?;
        ready.recv().map_err(|_| io::Error::other("the relay ended at once"))??;
        Ok(Relay { stop, thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Ends {
    arriving: Socket,
    leaving: Socket,
}

impl Ends {
    fn open(network: PathBuf) -> io::Result<Ends> {
        enter(&network)?;
        let kind = Protocol::from(i32::from(IPV4.to_be()));
        let arriving = Socket::new(Domain::PACKET, Type::DGRAM, Some(kind))?;
        // Bursts of replication wait here while the thread sleeps.
        arriving.set_recv_buffer_size(8 << 20)?;
        let leaving = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(AS_THEY_ARE)))?;
        leaving.set_send_buffer_size(8 << 20)?;
        Ok(Ends { arriving, leaving })
    }

    fn relay(&self, delay: Duration, loss: f64, stop: &AtomicBool) {
        let mut held: VecDeque<(Moment, Vec<u8>)> = VecDeque::new();
        let mut buffer = vec![0; LONGEST];
        let clock = Clock::start();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        while !stop.load(Ordering::Relaxed) || !held.is_empty() {
            let now = clock.now().moment;
            while held.front().is_some_and(|(due, _)| *due <= now) {
                if let Some((_, packet)) = held.pop_front() {
                    self.send(&packet);
                }
            }
            let wait = held.front().map_or(LOOK, |(due, _)| now.until(*due).min(LOOK));
            // A time-out of zero would wait for ever.
            let wait = wait.max(Duration::from_micros(100));
            let arrived = self
                .arriving
                .set_read_timeout(Some(wait))
                .and_then(|()| (&self.arriving).read(&mut buffer));
            if let Ok(length) = arrived
                && length > 0
                && held.len() < MOST_HELD
                && dice.roll() >= loss
            {
                held.push_back((clock.now().moment + delay, buffer[..length].to_vec()));
            }
        }
    }

    fn send(&self, packet: &[u8]) {
        let mut packet = packet.to_vec();
        if let Some(destination) = with_checksum(&mut packet) {
            let to = SockAddr::from(SocketAddrV4::new(destination, 0));
            // What cannot be sent is lost, as in any other network.
            let _ = self.leaving.send_to(&packet, &to);
        }
    }
}

/// Fills in the checksum of a TCP segment, which a virtual link leaves to hardware that is not there, and
/// says where the packet goes; `None` for what is no whole IPv4 packet.
fn with_checksum(packet: &mut [u8]) -> Option<Ipv4Addr> {
    const TCP: u8 = 6;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let address = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
    let (source, destination) = (address(12)?, address(16)?);
    if *packet.get(9)? == TCP {
        let segment = packet.get_mut(header..)?;
        segment.get_mut(16..18)?.fill(0);
        let length = u16::try_from(segment.len()).ok()?.to_be_bytes();
        let pseudo = [&source[..], &destination[..], &[0, TCP], &length[..]].concat();
        let sum = !ones_sum(ones_sum(0, &pseudo), segment) as u16;
        segment.get_mut(16..18)?.copy_from_slice(&sum.to_be_bytes());
    }
    Some(Ipv4Addr::from(destination))
}

/// The folded sum of 16-bit words that Internet checksums are made of.
fn ones_sum(start: u32, bytes: &[u8]) -> u32 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32
}

/// Numbers between 0 and 1, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_segment_is_filled_in() {
        // A SYN from 10.0.0.1:1 to 10.0.0.2:2, its checksum left out.
        let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0xab, 0xcd, 0, 0]);
        assert_eq!(with_checksum(&mut packet), Some(Ipv4Addr::new(10, 0, 0, 2)));
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0, 20];
        assert_eq!(ones_sum(ones_sum(0, &pseudo), &packet[20..]), 0xffff, "{packet:?}");
        assert_eq!(with_checksum(&mut [0x45, 0]), None);
    }
}
