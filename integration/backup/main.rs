//! Backups of real servers, to a folder and to a real S3 server in this process, and back.
//!
//! Where no server is installed the tests say so and pass, unless `REGENT_REQUIRE_SERVERS=1`.
#![expect(clippy::unwrap_used, reason = "a stage that cannot be set up fails its test")]
#![expect(clippy::print_stderr, reason = "a test that is passed over says so")]

/// Each of these tests, once on each flavour.
macro_rules! both {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn mysql() {
                super::$name(super::Mysql).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn mariadb() {
                super::$name(super::Mariadb).await;
            }
        }
    )*};
}

mod archive_faults;
mod archive_removal;
mod archiver;
mod beside;
mod binlogs;
mod bucket;
mod copies;
mod copies_failing;
mod damage;
mod failing;
mod faulty;
mod keeping;
mod keys;
mod leftovers;
mod making_way;
mod outages;
mod physical;
mod proofs;
mod restores;
mod resuming;
mod scheduled;
mod small;
mod stage;
mod targets;
#[path = "../tearing.rs"]
mod tearing;
mod there_and_back;
