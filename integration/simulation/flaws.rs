//! Bugs made on purpose, from outside: what watchers and proxies are told is bent.

use crate::setting::{Flaw, Setting};
use regent::decision::lease::ToProxy;
use regent::decision::plan::{Outcome, Step};
use regent::decision::report::Status;
use regent::decision::topology::Flavor;

/// Leases last for the proxies as they should, while leaders think that they are over at once.
pub fn stretch(setting: &Setting, message: ToProxy) -> ToProxy {
    match (setting.flaw, message) {
        (Flaw::LeaseNotAwaited, ToProxy::Granted { sent, routes, .. }) => {
            ToProxy::Granted { sent, span: setting.timing.lease, routes }
        }
        (_, message) => message,
    }
}

/// A status without what was received and not applied.
pub fn blind(mut status: Status) -> Status {
    for channel in &mut status.channels {
        channel.received = regent::decision::gtid::Gtids::empty(Flavor::MySql);
    }
    status
}

/// A step's answer, bent.
pub fn bend(flaw: Flaw, step: &Step, outcome: Outcome) -> Outcome {
    match (flaw, step, outcome) {
        (Flaw::ReceivedIgnored, Step::ReceiverStopped { .. }, Outcome::Done(mut facts)) => {
            facts.received.clone_from(&facts.executed);
            Outcome::Done(facts)
        }
        (_, _, outcome) => outcome,
    }
}
