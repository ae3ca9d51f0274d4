//! Database servers: probes and steps over `mysql_async`, one query layer per flavour.

pub mod canary;
pub mod connect;
pub mod dialect;
pub mod distance;
pub mod probe;
pub mod status;
pub mod steps;
