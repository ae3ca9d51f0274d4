//! Probes and steps against real MySQL and MariaDB servers.
//!
//! Where no server is installed the tests say so and pass, unless `REGENT_REQUIRE_SERVERS=1`.

mod cluster;
mod options;
mod probes;
mod steps;
