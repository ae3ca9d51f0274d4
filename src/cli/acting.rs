//! Commands that change something: they say what will happen, ask, and follow it to its end.

use super::args::{Failover, Global, Rejoin, Repair, Switchover};
use super::output::{Output, wrapped};
use super::reach::{client, encoded};
use super::{Failed, explanation, procedure};
use crate::api::client::{Client, Read};
use crate::api::types::{
    AdoptBody, DoneBody, ExplanationView, FailoverBody, OpenedBody, RejoinBody, RepairBody,
    SwitchoverBody,
};
use serde::Serialize;
use std::io::{self, BufRead, IsTerminal, Write};

/// `regent adopt`.
pub async fn adopt(
    global: &Global,
    cluster: &str,
    primary: &str,
    out: &mut Output,
) -> Result<(), Failed> {
    let path = format!("/v1/clusters/{}/adopt", encoded(cluster));
    let body = AdoptBody { primary: primary.to_owned() };
    let read: Read<DoneBody> = client(global)?.post(&path, &body).await?;
    if global.json {
        Ok(out.raw(&read.json)?)
    } else {
        Ok(out.text(&format!("{}\n", read.view.text))?)
    }
}

/// `regent switchover`.
pub async fn switchover(
    global: &Global,
    order: &Switchover,
    out: &mut Output,
) -> Result<(), Failed> {
    let acting =
        Acting { global, client: client(global)?, cluster: &order.cluster, kind: "switchover" };
    let body = |dry_run| SwitchoverBody { to: order.to.clone(), dry_run };
    if order.dry_run {
        return acting.dry_run(&body(true), out).await;
    }
    if !order.yes && io::stdin().is_terminal() {
        acting.confirm(&body(true), out).await?;
    }
    acting.open(&body(false), out).await
}

/// `regent failover`.
pub async fn failover(global: &Global, order: &Failover, out: &mut Output) -> Result<(), Failed> {
    let acting =
        Acting { global, client: client(global)?, cluster: &order.cluster, kind: "failover" };
    let accept_loss = order.accept_loss;
    let body = |dry_run| FailoverBody { to: order.to.clone(), accept_loss, dry_run };
    if order.dry_run {
        return acting.dry_run(&body(true), out).await;
    }
    if !order.yes {
        if io::stdin().is_terminal() {
            acting.confirm(&body(true), out).await?;
        } else if accept_loss {
            let text = "--accept-loss may lose acknowledged transactions and nobody can be asked \
                        here; add --yes, or look first with --dry-run";
            return Err(Failed::Usage(text.to_owned()));
        }
    }
    acting.open(&body(false), out).await
}

/// `regent rejoin`.
pub async fn rejoin(global: &Global, order: &Rejoin, out: &mut Output) -> Result<(), Failed> {
    let acting =
        Acting { global, client: client(global)?, cluster: &order.cluster, kind: "rejoin" };
    let body = |dry_run| RejoinBody {
        server: order.server.clone(),
        rebuild: order.rebuild,
        from: order.from.clone(),
        accept_loss: order.accept_loss,
        dry_run,
    };
    if order.dry_run {
        return acting.dry_run(&body(true), out).await;
    }
    if !order.yes {
        if io::stdin().is_terminal() {
            acting.confirm(&body(true), out).await?;
        } else if order.rebuild {
            let text = "--rebuild replaces all data of the server and nobody can be asked here; \
                        add --yes, or look first with --dry-run";
            return Err(Failed::Usage(text.to_owned()));
        }
    }
    acting.open(&body(false), out).await
}

/// `regent repair`.
pub async fn repair(global: &Global, order: &Repair, out: &mut Output) -> Result<(), Failed> {
    let acting =
        Acting { global, client: client(global)?, cluster: &order.cluster, kind: "repair" };
    let body = |dry_run| RepairBody { dry_run };
    if order.dry_run {
        return acting.dry_run(&body(true), out).await;
    }
    if !order.yes && io::stdin().is_terminal() {
        acting.confirm(&body(true), out).await?;
    }
    acting.open(&body(false), out).await
}

/// Asks on the terminal; anything but a yes ends it.
pub(super) fn wants_to(what: &str) -> Result<(), Failed> {
    let mut screen = io::stderr();
    write!(screen, "{what}\nGo on? [y/N] ")?;
    screen.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failed::Refused("nothing was done".to_owned())),
    }
}

/// One order on its way.
struct Acting<'a> {
    global: &'a Global,
    client: Client,
    cluster: &'a str,
    kind: &'static str,
}

impl Acting<'_> {
    fn path(&self) -> String {
        format!("/v1/clusters/{}/{}", encoded(self.cluster), self.kind)
    }

    async fn dry_run(&self, body: &impl Serialize, out: &mut Output) -> Result<(), Failed> {
        let read: Read<ExplanationView> = self.client.post(&self.path(), body).await?;
        if self.global.json {
            return Ok(out.raw(&read.json)?);
        }
        Ok(out.text(&explanation::explanation(&read.view, out.width))?)
    }

    /// Shows what will happen, on standard error, and wants a yes.
    async fn confirm(&self, body: &impl Serialize, out: &Output) -> Result<(), Failed> {
        let read: Read<ExplanationView> = self.client.post(&self.path(), body).await?;
        let plan = explanation::plan(&read.view.plan, out.width);
        let loss = match read.view.loss.as_str() {
            "" => String::new(),
            loss => format!("\nloss  {}", wrapped(loss, 6, out.width)),
        };
        wants_to(&format!("{} of {}{plan}{loss}", self.kind, self.cluster))
    }

    async fn open(&self, body: &impl Serialize, out: &mut Output) -> Result<(), Failed> {
        let read: Read<OpenedBody> = self.client.post(&self.path(), body).await?;
        let id = read.view.procedure;
        procedure::follow(&self.client, self.cluster, id, self.global.json, out).await
    }
}
