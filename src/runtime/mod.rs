//! The only part that touches the world: outputs become work, results become inputs.

pub mod backup;
pub mod canaries;
pub mod disk;
pub mod fence;
pub mod handle;
pub mod metrics;
pub mod mysql;
pub mod orders;
pub mod peers;
pub mod probes;
pub mod steps;
pub mod turning;
pub mod withdrawal;
