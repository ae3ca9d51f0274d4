//! The real program on real servers: watchers and proxies as processes, on loopback or in data centers
//! of their own (`zones`), shops that write through the proxies, and faults of every kind.
//!
//! Each test runs on MySQL and on MariaDB. Where a flavour is not installed it says so and passes,
//! unless `REGENT_REQUIRE_SERVERS=1`. A test that fails prints the cluster's events and the end of
//! each log, and keeps its directory.

mod asking;
mod held;
mod stage;

mod adoption;
mod archives;
mod backups;
mod clocks;
mod copying;
mod credentials;
mod death;
mod durability;
mod fencing;
mod forcing;
mod lagging;
mod last_rung;
mod leaders;
mod maintaining;
mod privileges;
mod proofs;
mod rejoining;
mod restarting;
mod starting;
mod switching;
mod zones;

/// Makes a test of each scenario for both flavours.
macro_rules! on_both_flavors {
    ($($(#[$attribute:meta])* $scenario:ident),* $(,)?) => {
        mod mysql {
            $($(#[$attribute])*
            #[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                let flavor = regent::demo::servers::DatabaseFlavor::Mysql;
                $crate::stage::play(flavor, async |stage| super::$scenario(stage).await).await;
            })*
        }
        mod mariadb {
            $($(#[$attribute])*
            #[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                let flavor = regent::demo::servers::DatabaseFlavor::Mariadb;
                $crate::stage::play(flavor, async |stage| super::$scenario(stage).await).await;
            })*
        }
    };
}
use on_both_flavors;
