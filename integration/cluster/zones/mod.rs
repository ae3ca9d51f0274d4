//! Three data centers: a server and a watcher in each, in two of them a proxy and a shop as well.
//!
//! Every scenario ends in the same judgement: each acknowledged order is on the final primary, one
//! server takes writes, and all others follow it and hold the same. A few run with every push; the others
//! are ignored until `scripts/test --all` asks for them. They need root, for network namespaces.

mod faults;
mod harmless;
mod overload;
mod partial;
mod slow;
mod storage;

use crate::stage::{Outcome, Setting, Stage, is_there, play_with};
use regent::demo::lab::{Lab, inside};
use regent::demo::servers::DatabaseFlavor;

/// Makes a test of each scenario for both flavours.
macro_rules! in_zones {
    ($($(#[$attribute:meta])* $scenario:ident),* $(,)?) => {
        mod mysql {
            $($(#[$attribute])*
            #[test]
            fn $scenario() {
                let flavor = regent::demo::servers::DatabaseFlavor::Mysql;
                $crate::zones::play(flavor, None, async |stage| super::$scenario(stage).await);
            })*
        }
        mod mariadb {
            $($(#[$attribute])*
            #[test]
            fn $scenario() {
                let flavor = regent::demo::servers::DatabaseFlavor::Mariadb;
                $crate::zones::play(flavor, None, async |stage| super::$scenario(stage).await);
            })*
        }
    };
}
use in_zones;

/// Plays a scenario in a lab of its own, in which one server may have a small file system.
fn play(
    flavor: DatabaseFlavor,
    small_disk_of: Option<&'static str>,
    scenario: impl AsyncFnOnce(&mut Stage) -> Outcome + Send,
) {
    if !is_there(Lab::is_possible()) {
        return;
    }
    let lab = Lab::set_up().expect("three data centers");
    let desk = lab.desk().to_owned();
    let mut setting = Setting::new(flavor);
    setting.cluster.sites = Some(lab.sites());
    setting.lab = Some(lab);
    setting.small_disk_of = small_disk_of;
    inside(&desk, |runtime| runtime.block_on(play_with(setting, scenario))).expect("a runtime");
}
