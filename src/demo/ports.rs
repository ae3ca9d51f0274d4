//! Free loopback ports for throw-away servers.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which systems take ports for outgoing connections: a server that is down for a
/// moment would otherwise find its port taken by somebody's client when it comes back.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// Finds `wanted` ports that nobody listens on, each handed out once per process.
///
/// Fewer come back only when the whole range is taken.
pub fn free_ports(wanted: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes start at different places, so that test runs side by side rarely try the same port.
    let start = std::process::id().wrapping_mul(97);
    let mut found = Vec::with_capacity(wanted);
    for _ in 0..COUNT {
        if found.len() == wanted {
            break;
        }
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let Ok(port) = u16::try_from(FIRST + offset) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
    }
    found
}
