//! Probes and steps against real MySQL and MariaDB servers.
//!
//! Where no server is installed the tests say so and pass, unless `REGENT_REQUIRE_SERVERS=1`.
#![expect(clippy::unwrap_used, reason = "a stage that cannot be set up fails its test")]
#![expect(clippy::print_stderr, reason = "a test that is passed over says so")]

/// Each of these tests, once on each flavour.
macro_rules! both {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test]
            async fn mysql() {
                super::$name(super::Mysql).await;
            }

            #[tokio::test]
            async fn mariadb() {
                super::$name(super::Mariadb).await;
            }
        }
    )*};
}

mod cluster;
mod options;
mod probes;
mod rejoining;
mod steps;
mod storage;
#[path = "../tearing.rs"]
mod tearing;
mod torn;
