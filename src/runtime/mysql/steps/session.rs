//! One step's connection to its server.

use crate::clock::{Moment, WallTime};
use crate::config::Credentials;
use crate::decision::plan::Facts;
use crate::decision::report::Status;
use crate::decision::topology::{Endpoint, ServerSpec};
use crate::runtime::mysql::connect::{self, ConnectError};
use crate::runtime::mysql::dialect::Dialect;
use crate::runtime::mysql::distance::Distance;
use crate::runtime::mysql::status::{self, StatusError};
use crate::runtime::steps::{Access, Exports, Link};
use crate::runtime::withdrawal::Withdrawal;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Connecting is part of a step and must leave time for the rest.
const CONNECT_LIMIT: Duration = Duration::from_millis(1000);

/// Between two looks at a state that is coming about.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Why a state was not brought about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StepError {
    /// Another attempt may help.
    #[error("{0}")]
    Retry(String),
    /// Another attempt will not.
    #[error("{0}")]
    Failed(String),
}

/// A connection with what the step may do and until when.
pub(super) struct Session {
    conn: Conn,
    access: Access,
    permit: Moment,
    deadline: Moment,
    /// The words the server understands.
    pub(super) dialect: Dialect,
}

impl Session {
    /// Takes the last step's connection, or makes one.
    pub(super) async fn resume(
        access: &Access,
        permit: Moment,
        deadline: Moment,
    ) -> Result<Session, StepError> {
        match access.link.0.take(&access.distance).await {
            Some((conn, dialect)) => {
                Ok(Session { conn, access: access.clone(), permit, deadline, dialect })
            }
            None => Session::open(access, permit, deadline).await,
        }
    }

    /// Leaves the connection to the next step.
    pub(super) fn keep(self) {
        self.access.link.0.put(self.conn, self.dialect, self.access.clock);
    }

    /// Connects and learns whom it talks to.
    pub(super) async fn open(
        access: &Access,
        permit: Moment,
        deadline: Moment,
    ) -> Result<Session, StepError> {
        let account = &access.credentials.monitor;
        let server = &access.server;
        let connecting = |to| async move {
            connect::connect(to, account, CONNECT_LIMIT, &access.distance).await
        };
        let mut conn = match (connecting(&server.address).await, &server.admin_address) {
            (Err(ConnectError::TooManyConnections), Some(door)) => connecting(door).await?,
            (connected, _) => connected?,
        };
        let dialect = status::learn_plainly(&mut conn).await?;
        Ok(Session { conn, access: access.clone(), permit, deadline, dialect })
    }

    /// A second connection to the same server, under the same permit.
    pub(super) async fn another(&self) -> Result<Session, StepError> {
        Session::open(&self.access, self.permit, self.deadline).await
    }

    /// Ends the connection in order, without waiting long for it.
    pub(super) async fn close(self) {
        // A failure to say goodbye changes nothing.
        let _ = tokio::time::timeout(Duration::from_millis(50), self.conn.disconnect()).await;
    }

    /// Must be asked before every changing statement.
    pub(super) fn permitted(&self) -> Result<(), StepError> {
        self.still_wanted()?;
        if self.access.clock.now().moment > self.access.renewal.extend(self.permit) {
            return Err(StepError::Retry("permit ran out".to_owned()));
        }
        Ok(())
    }

    /// Must be asked wherever a step waits for something: the order may be withdrawn meanwhile.
    pub(super) fn still_wanted(&self) -> Result<(), StepError> {
        match self.access.withdrawal.is_over() {
            true => Err(StepError::Retry(Withdrawal::WHY.to_owned())),
            false => Ok(()),
        }
    }

    /// The time left of the step's limit.
    pub(super) fn left(&self) -> Duration {
        self.access.clock.now().moment.until(self.deadline)
    }

    /// The cluster's accounts.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.access.credentials
    }

    /// Whether nobody reads any more what is answered to the sessions that proxies led here.
    pub(super) fn clients_cut(&self) -> bool {
        self.access.clients_cut
    }

    /// Between two heartbeats of the replication stream.
    pub(super) fn heartbeat(&self) -> Duration {
        self.access.timing.replication_heartbeat
    }

    /// This connection's number on the server.
    pub(super) fn id(&self) -> u64 {
        u64::from(self.conn.id())
    }

    /// Everything about the server, as a probe sees it.
    pub(super) async fn status(&mut self) -> Result<Status, StepError> {
        Ok(status::read(&mut self.conn, &self.dialect).await?)
    }

    /// Learns again what the server understands, after a plugin was loaded.
    pub(super) async fn learn(&mut self) -> Result<(), StepError> {
        self.dialect = status::learn(&mut self.conn).await?;
        Ok(())
    }

    /// Runs statements that answer nothing; asks for the permit first.
    pub(super) async fn run(&mut self, statements: &str) -> Result<(), StepError> {
        self.permitted()?;
        Ok(self.conn.query_drop(statements).await?)
    }

    /// Runs statements with a secret in them: the server's words, which may quote it, are dropped.
    pub(super) async fn run_secretly(&mut self, statements: &str) -> Result<(), StepError> {
        self.permitted()?;
        self.conn.query_drop(statements).await.map_err(|error| match &error {
            Error::Server(server) => of_server(server.code, "in a statement with a password"),
            _ => StepError::from(error),
        })
    }

    /// As [`Session::run`], giving back the error number instead of an error.
    pub(super) async fn try_run(&mut self, statements: &str) -> Result<Option<u16>, StepError> {
        self.permitted()?;
        self.try_change(statements).await
    }

    /// Ends sessions, all in one round trip as long as the server agrees; gives back the error number
    /// for each with which it did not.
    pub(super) async fn end(&mut self, sessions: &[u64]) -> Result<Vec<(u64, u16)>, StepError> {
        let mut refused = Vec::new();
        let mut left = sessions;
        while !left.is_empty() {
            self.permitted()?;
            let orders: Vec<String> = left.iter().map(|id| self.dialect.kill(*id)).collect();
            let (ended, error) = self.run_until_error(&orders.join("; ")).await?;
            let Some(code) = error else { break };
            let (_, rest) = left.split_at(ended.min(left.len()));
            let Some((at_fault, rest)) = rest.split_first() else { break };
            refused.push((*at_fault, code));
            left = rest;
        }
        Ok(refused)
    }

    /// How many statements went well, and the number of the error that ended them.
    async fn run_until_error(
        &mut self,
        statements: &str,
    ) -> Result<(usize, Option<u16>), StepError> {
        let mut done = 0;
        let running = async {
            let mut results = self.conn.query_iter(statements).await?;
            done += 1;
            while !results.is_empty() {
                results.for_each(drop).await?;
                done += 1;
            }
            // An error is kept as the last result, and would be told to the next question.
            results.drop_result().await
        };
        match running.await {
            Ok(()) => Ok((done, None)),
            Err(Error::Server(server)) => Ok((done.saturating_sub(1), Some(server.code))),
            Err(error) => Err(error.into()),
        }
    }

    /// What the server keeps across a restart by itself; nothing where it cannot, or may not say.
    pub(super) async fn persisted(&mut self) -> Result<BTreeMap<String, String>, StepError> {
        let Some(question) = self.dialect.persisted() else {
            return Ok(BTreeMap::new());
        };
        match self.conn.query::<(String, Option<String>), _>(question).await {
            Ok(rows) => Ok(rows
                .into_iter()
                .map(|(name, value)| (name, value.unwrap_or_default()))
                .collect()),
            Err(Error::Server(_)) => Ok(BTreeMap::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a server come back closed after a restart, be it open now. Best effort: without the
    /// privilege the server's own settings decide that.
    pub(super) async fn persist_closed(&mut self) -> Result<(), StepError> {
        let kept = self.persisted().await?;
        self.close_at_restart(&kept).await
    }

    /// The same where it is known what the server keeps.
    pub(super) async fn close_at_restart(
        &mut self,
        kept: &BTreeMap<String, String>,
    ) -> Result<(), StepError> {
        let Some(order) = self.dialect.close_at_restart() else {
            return Ok(());
        };
        if kept.get("super_read_only").is_none_or(|value| value != "ON") {
            self.try_run(order).await?;
        }
        Ok(())
    }

    /// A connection to another server of the cluster, under the same permit.
    pub(super) async fn to(&self, address: &Endpoint) -> Result<Session, StepError> {
        let (name, place) =
            (self.access.server.name.clone(), self.access.server.data_center.clone());
        let server = ServerSpec::new(name, address.clone(), place);
        let (link, distance) = (Link::default(), Distance::default());
        let access = Access { server, link, distance, ..self.access.clone() };
        Session::open(&access, self.permit, self.deadline).await
    }

    /// What this session was made from.
    pub(super) fn parts(&self) -> (Access, Moment, Moment) {
        (self.access.clone(), self.permit, self.deadline)
    }

    /// What it was made for.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// The server's address.
    pub(super) fn address(&self) -> &Endpoint {
        &self.access.server.address
    }

    /// Where files for people go.
    pub(super) fn exports(&self) -> &Exports {
        &self.access.exports
    }

    /// The path of a client program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.access.programs.find(name)
    }

    /// The time, for people.
    pub(super) fn wall(&self) -> WallTime {
        self.access.clock.now().wall
    }

    /// Shows how far a long step is.
    pub(super) fn report(&self, text: String, done: u64, total: Option<u64>) {
        self.access.report(text, done, total);
    }

    /// Runs a statement also after the permit: on a server whose data is being replaced, or one that
    /// takes back what the step itself did.
    pub(super) async fn change(&mut self, statement: &str) -> Result<(), StepError> {
        Ok(self.conn.query_drop(statement).await?)
    }

    /// As [`Session::change`], giving back the error number instead of an error, and never the
    /// server's words, which may quote a password.
    pub(super) async fn try_change(&mut self, statement: &str) -> Result<Option<u16>, StepError> {
        match self.conn.query_drop(statement).await {
            Ok(()) => Ok(None),
            Err(Error::Server(server)) => Ok(Some(server.code)),
            Err(error) => Err(error.into()),
        }
    }

    /// All rows of a question that changes nothing.
    pub(super) async fn ask<T: FromRow + Send + 'static>(
        &mut self,
        question: &str,
    ) -> Result<Vec<T>, StepError> {
        Ok(self.conn.query(question).await?)
    }
}

/// The position a step answers with.
pub(super) fn position(status: &Status) -> Facts {
    let (executed, received) = (Some(status.executed.clone()), Some(status.received()));
    Facts { executed, received, ..Facts::default() }
}

fn of_server(code: u16, words: &str) -> StepError {
    let reason = format!("error {code}: {}", connect::cut(words));
    match code {
        // Slots, shutdown, locks, deadlocks, running threads: all of them pass.
        1040 | 1053 | 1077 | 1079 | 1198 | 1199 | 1203 | 1205 | 1213 | 1226 | 1317 | 3021
        | 3081 => StepError::Retry(reason),
        _ => StepError::Failed(reason),
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> StepError {
        match &error {
            Error::Server(server) => of_server(server.code, &server.message),
            Error::Io(_) | Error::Driver(_) => {
                StepError::Retry(connect::cut(&format!("connection lost: {error}")))
            }
            _ => StepError::Failed(connect::cut(&error.to_string())),
        }
    }
}

impl From<ConnectError> for StepError {
    fn from(error: ConnectError) -> StepError {
        match error {
            ConnectError::Denied(_) => StepError::Failed(error.to_string()),
            other => StepError::Retry(other.to_string()),
        }
    }
}

impl From<StatusError> for StepError {
    fn from(error: StatusError) -> StepError {
        match error {
            StatusError::Database(error) => error.into(),
            StatusError::Strange(what) => {
                StepError::Failed(format!("answer not understood: {what}"))
            }
        }
    }
}
