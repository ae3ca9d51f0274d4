//! Nothing acknowledged is lost under `durability: lossless`.

use crate::servers::Held;
use crate::world::World;

/// The newest acknowledged transaction of each origin. A server that holds it holds all before it.
#[derive(Debug)]
pub struct Lossless {
    pub acknowledged: Held,
}

impl World {
    /// A server that takes writes holds every commit that a client was told of.
    pub fn check_nothing_lost(&mut self, server: usize) {
        if !self.setting.lossless() {
            return;
        }
        let acknowledged = &self.invariants.lossless.acknowledged;
        let held = &self.servers[server].executed;
        if !held.contains(acknowledged) {
            let text = format!(
                "db{} is the primary and lacks acknowledged commits: holds {:?}, acknowledged {:?}",
                server + 1,
                held.0,
                acknowledged.0
            );
            self.broken(text);
        }
    }
}
