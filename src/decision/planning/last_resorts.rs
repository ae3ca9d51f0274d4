//! What is left where a server cannot be asked, or nobody is there to acknowledge.

use super::{may, must, stage};
use crate::decision::cluster::Writer;
use crate::decision::diagnosis::{Finding, FindingKind};
use crate::decision::plan::Step;
use crate::decision::procedure::{Kind, Procedure, Stage};
use crate::decision::situation::Situation;
use crate::decision::topology::{Durability, Flavor, ServerSpec};

/// The stage that takes a lost primary out of service from outside, where it did not close itself
/// and its operators say how. Nothing waits for it that is proven otherwise.
pub(super) fn force(situation: &Situation, procedure: &Procedure) -> Option<Stage> {
    let from = situation.spec.server(&procedure.from)?;
    let needed = procedure.kind == Kind::Failover && !procedure.former_is_read_only();
    let mut force = stage("fence", vec![may(fenced(from).filter(|_| needed)?)]);
    force.attempts = 2;
    Some(force)
}

fn fenced(server: &ServerSpec) -> Option<Step> {
    let fence = server.fence.as_ref()?;
    Some(Step::Fenced { server: server.name.clone(), within: fence.limit })
}

/// How a server that must not take writes is closed. Where commits wait for acknowledgements that
/// nobody can give, MariaDB becomes read-only only by telling their clients that they succeeded.
pub(super) fn closed(situation: &Situation, server: &ServerSpec) -> Step {
    let waits_in_vain = situation.status(&server.name).is_some_and(|status| {
        let semi_sync = &status.semi_sync;
        status.flavor == Flavor::MariaDb
            && semi_sync.source
            && semi_sync.waiting > 0
            && semi_sync.clients < semi_sync.acks.max(1)
    });
    let by_force = fenced(server).filter(|_| waits_in_vain);
    by_force.unwrap_or_else(|| Step::ReadOnly { server: server.name.clone() })
}

/// The plan that lets commits on the primary go on without acknowledgements.
pub fn degrade(writer: &Writer) -> Vec<Stage> {
    let primary = writer.primary().cloned();
    let step = primary.map(|server| must(Step::CommitsWait { server, acks: 0 }));
    step.map(|step| stage("degrade", vec![step])).into_iter().collect()
}

/// Why a failover would mend nothing, although it could succeed.
pub fn pointless(situation: &Situation, finding: &Finding) -> Option<String> {
    let Durability::Lossless { .. } = situation.spec.durability else {
        return None;
    };
    let answering =
        situation.replicas().filter(|replica| situation.status(&replica.name).is_some()).count();
    (finding.kind == FindingKind::PrimaryCannotReplicate && answering < 2).then(|| {
        "a new primary would have nobody but the former one to acknowledge its commits".to_owned()
    })
}
