//! Which of the archived transactions are carried out.

use super::recovery::{Plan, Until};
use crate::decision::gtid::Gtids;

/// What is done with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there already, or belongs to another history.
    PassOver,
    /// It is carried out.
    CarryOut,
    /// It is carried out, and nothing after it.
    Last,
    /// Neither it nor anything after it.
    Stop,
}

/// A backup's data includes what came later than the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{backup} holds {gtid}, which was committed later than {until}: clocks differ; name an older backup"
)]
pub struct Ahead {
    backup: String,
    gtid: String,
    until: String,
}

/// Goes through the transactions of a plan, one after the other.
#[derive(Clone, Debug)]
pub struct Walk {
    plan: Plan,
    /// All that the server has.
    position: Gtids,
    carried_out: u64,
}

impl Walk {
    /// Begins with all that the server has.
    pub fn new(plan: Plan, position: Gtids) -> Walk {
        Walk { plan, position, carried_out: 0 }
    }

    /// What is done with the next transaction, found in that segment, committed at that time.
    pub fn next(&mut self, segment: u64, gtid: &Gtids, micros: u64) -> Result<Verdict, Ahead> {
        if self.plan.left_out.iter().any(|lost| lost.names(gtid, segment)) {
            return Ok(Verdict::PassOver);
        }
        let here = self.plan.until.gtid() == Some(gtid);
        let later = matches!(self.plan.until, Until::Time(until) if micros > until);
        if here && matches!(self.plan.until, Until::Before(_)) {
            return Ok(Verdict::Stop);
        }
        if self.position.contains(gtid) {
            if later && self.plan.from.contains(gtid) {
                return Err(Ahead {
                    backup: self.plan.backup.to_string(),
                    gtid: gtid.to_string(),
                    until: self.plan.until.to_string(),
                });
            }
            return Ok(if here || later { Verdict::Stop } else { Verdict::PassOver });
        }
        if later {
            return Ok(Verdict::Stop);
        }
        self.position.add(gtid);
        self.carried_out += 1;
        Ok(if here { Verdict::Last } else { Verdict::CarryOut })
    }

    /// All that the server has when everything so far was carried out.
    pub fn position(&self) -> &Gtids {
        &self.position
    }

    /// How many transactions were to be carried out so far.
    pub fn carried_out(&self) -> u64 {
        self.carried_out
    }
}
