//! The only part that touches the world: outputs become work, results become inputs.

pub mod mysql;
pub mod steps;
