//! A whole cluster on one machine: real servers, watchers, a proxy and a client that notices outages.

pub mod ports;
pub mod process;
pub mod servers;
