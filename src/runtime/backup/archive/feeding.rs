//! Feeding binary logs to the database's own programs, as one log as far as they can be.

use super::dividing::Dividing;
use super::events::{MAGIC, statement};
use super::reading::{Opened, Piece};
use super::tables::{self, Making};
use crate::decision::backup::archive::walk::{Verdict, Walk};
use crate::runtime::backup::BackupError;
use crate::runtime::backup::tool::{Reach, Tool};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

/// Where in the event that describes a log it says how the others are laid out: not by whom, and without
/// its checksum.
const LAYOUT: usize = super::events::HEADER;
const CHECKSUM: usize = 4;

/// Programs that carry out what they are fed. The client ends before its input does, however they end.
struct Programs {
    client: Tool,
    decoder: Tool,
    input: ChildStdin,
}

/// The way to a server.
pub(super) struct Feeding<'a> {
    reach: Reach<'a>,
    programs: Option<Programs>,
    /// How the programs were told that events are laid out.
    description: Vec<u8>,
    /// How the segment says it.
    spare: Vec<u8>,
}

impl Programs {
    fn start(reach: Reach<'_>) -> Result<Programs, BackupError> {
        let mut decoder = Tool::start(reach.decode())?;
        let output: Result<Stdio, _> = decoder.output()?.try_into();
        let output = output.map_err(BackupError::io("a pipe"))?;
        let client = Tool::start(reach.carry_out(output))?;
        let input = decoder.input()?;
        Ok(Programs { client, decoder, input })
    }
}

impl<'a> Feeding<'a> {
    pub(super) fn new(reach: Reach<'a>) -> Feeding<'a> {
        Feeding { reach, programs: None, description: Vec::new(), spare: Vec::new() }
    }

    /// Feeds what is wanted of a segment; true when nothing more is.
    pub(super) async fn segment(
        &mut self,
        (opened, number): (&mut Opened<'_>, u64),
        walk: &mut Walk,
    ) -> Result<bool, BackupError> {
        let (mut wanted, mut last) = (false, false);
        let (mut dividing, mut making) = (Dividing::default(), None);
        self.spare.clear();
        loop {
            match opened.next().await? {
                None => return Ok(last),
                Some(Piece::Description(bytes)) => self.spare = bytes,
                Some(Piece::Begins(..)) if last => return Ok(true),
                Some(Piece::Begins(bytes, began)) => {
                    let verdict = walk.next(number, &began.gtid, began.micros);
                    let ahead = |error| BackupError::Unknown(format!("{error}"));
                    match verdict.map_err(ahead)? {
                        Verdict::Stop => return Ok(true),
                        Verdict::PassOver => wanted = false,
                        verdict => {
                            dividing = Dividing::default();
                            (wanted, last) = (true, verdict == Verdict::Last);
                            self.describe(number).await?;
                            if began.may_make_a_table {
                                making = Some(bytes);
                            } else {
                                self.write(&bytes).await?;
                            }
                        }
                    }
                }
                Some(Piece::Within(head, rest)) if wanted => {
                    let (head, rest) = match making.take() {
                        Some(gtid) => self.make(opened, gtid, (head, rest)).await?,
                        None => (head, rest),
                    };
                    dividing.pass_on(opened, (head, rest), self.input()?).await?;
                }
                Some(Piece::Within(_, rest)) => {
                    opened.pass_on(rest, &mut tokio::io::sink()).await?;
                }
            }
        }
    }

    /// Makes a table whose rows follow in the same transaction, if that is what it begins with: the rest of
    /// the event is given back.
    async fn make(
        &mut self,
        opened: &mut Opened<'_>,
        gtid: Vec<u8>,
        (mut head, rest): (Vec<u8>, u64),
    ) -> Result<(Vec<u8>, u64), BackupError> {
        if !tables::is_statement(&head, rest) {
            self.write(&gtid).await?;
            return Ok((head, rest));
        }
        opened.pass_on(rest, &mut head).await?;
        let summed = opened.has_checksums();
        match tables::making(&head, summed) {
            Making::Table(events) => {
                self.write(&statement("SET SESSION sql_log_bin = 0", summed)).await?;
                self.write(&events).await?;
                self.write(&statement("SET SESSION sql_log_bin = 1", summed)).await?;
                self.write(&gtid).await?;
                // Nothing of it is left.
                Ok((Vec::new(), 0))
            }
            Making::Other => {
                self.write(&gtid).await?;
                Ok((head, 0))
            }
        }
    }

    /// Says how what follows is laid out. Programs that were told otherwise would take that for a part of the
    /// last transaction, so that others are started.
    async fn describe(&mut self, number: u64) -> Result<(), BackupError> {
        if self.spare.is_empty() {
            let what = "it does not say how it is laid out".to_owned();
            return Err(BackupError::Damaged { object: format!("segment {number}"), what });
        }
        if self.programs.is_some() && layout(&self.spare) == layout(&self.description) {
            return Ok(());
        }
        self.end().await?;
        self.programs = Some(Programs::start(self.reach)?);
        self.description.clone_from(&self.spare);
        let description = self.spare.clone();
        self.write(&MAGIC).await?;
        self.write(&description).await
    }

    /// Lets the programs carry out what they were fed, and waits for them.
    pub(super) async fn end(&mut self) -> Result<(), BackupError> {
        let Some(Programs { client, decoder, mut input }) = self.programs.take() else {
            return Ok(());
        };
        // One that has ended already says why below.
        let _ = input.shutdown().await;
        drop(input);
        // When the client fails, the decoder does for that reason alone.
        client.finished().await?;
        decoder.ended().await
    }

    fn input(&mut self) -> Result<&mut ChildStdin, BackupError> {
        let none = || BackupError::Unknown("no program was started".to_owned());
        self.programs.as_mut().map(|programs| &mut programs.input).ok_or_else(none)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let written = self.input()?.write_all(bytes).await;
        written.map_err(BackupError::io("feeding the server"))
    }
}

fn layout(description: &[u8]) -> &[u8] {
    let end = description.len().saturating_sub(CHECKSUM);
    description.get(LAYOUT..end).unwrap_or_default()
}
