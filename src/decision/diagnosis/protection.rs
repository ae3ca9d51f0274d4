//! Do commits wait for acknowledgements as they should?

use super::{Finding, FindingKind, of};
use crate::decision::cluster::Writer;
use crate::decision::durability;
use crate::decision::situation::Situation;
use crate::decision::topology::{Durability, ServerSpec};

pub(super) fn findings(situation: &Situation, primary: &ServerSpec) -> Vec<Finding> {
    let Durability::Lossless { .. } = situation.spec.durability else {
        return Vec::new();
    };
    let open = matches!(situation.state.writer, Writer::Open { .. });
    let Some(status) = situation.status(&primary.name).filter(|_| open) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let wanted = durability::wanted(situation, primary);
    let semi_sync = &status.semi_sync;
    if durability::blocked(status) {
        let text = format!(
            "{} commit(s) on {} wait; {} of {} needed replicas are there to acknowledge",
            semi_sync.waiting,
            primary.name,
            semi_sync.clients,
            semi_sync.acks.max(1)
        );
        found.push(of(FindingKind::CommitsBlocked, primary, text, Vec::new()));
    }
    let waits = semi_sync.source && semi_sync.acks >= wanted.acks;
    if situation.state.protection.degraded && !durability::anybody_there(situation, &wanted) {
        let text = format!(
            "commits on {} go on unprotected, as the rules chose, until a replica is back to \
             acknowledge",
            primary.name
        );
        found.push(of(FindingKind::Degraded, primary, text, Vec::new()));
    } else if !waits || !situation.state.protection.in_force {
        let text = format!("commits on {} do not wait for acknowledgements", primary.name);
        found.push(of(FindingKind::Unprotected, primary, text, Vec::new()));
    } else {
        // Who follows somebody else acknowledges nothing here, whatever is set.
        let follows = |replica: &&ServerSpec| {
            let channel = situation.status(&replica.name).and_then(|status| status.channel());
            channel.is_some_and(|channel| channel.source == primary.address)
        };
        let differs = situation.replicas().filter(follows).filter(|replica| {
            let status = situation.status(&replica.name);
            let should = wanted.ackers.contains(&replica.name);
            let recorded = situation.state.protection.may_acknowledge.contains(&replica.name);
            // One that does not follow acknowledges nothing, whatever its setting.
            let follows = situation.follows(&replica.name, primary);
            status.is_some_and(|status| match (should, status.semi_sync.replica) {
                (true, does) => !does || !recorded,
                (false, does) => does && follows && !durability::spared(situation, replica),
            })
        });
        let names: Vec<_> = differs.map(|replica| replica.name.to_string()).collect();
        if durability::unasked(situation, primary, &wanted) {
            let text = format!("{} does not ask connected replicas to acknowledge", primary.name);
            found.push(of(FindingKind::Unprotected, primary, text, Vec::new()));
        }
        if durability::unheard(situation, primary, &wanted) {
            let text = format!(
                "commits on {} wait for acknowledgements that were lost: replicas hold all of them",
                primary.name
            );
            found.push(of(FindingKind::Unprotected, primary, text, Vec::new()));
        }
        if !names.is_empty() {
            let text = format!("{} should acknowledge differently", names.join(", "));
            found.push(of(FindingKind::Unprotected, primary, text, Vec::new()));
        }
    }
    if wanted.degraded {
        let text = "no replica in another data center can acknowledge; those nearby do".to_owned();
        found.push(of(FindingKind::AcknowledgedNearby, primary, text, Vec::new()));
    }
    found
}
