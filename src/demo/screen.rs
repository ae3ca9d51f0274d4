//! The demonstration's lines on the screen.

use super::answers::{ClusterStatus, Event};
use crate::clock::WallTime;
use std::io::{self, Write};
use std::time::Duration;

/// Writes lines, coloured when the output is a terminal.
pub(super) struct Screen<'a> {
    out: &'a mut (dyn Write + Send),
    color: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Faint,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send), color: bool) -> Screen<'a> {
        Screen { out, color }
    }

    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        let line = if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
        writeln!(self.out, "\n{line}")?;
        self.out.flush()
    }

    pub(super) fn line(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        let code = match tone {
            Tone::Plain => "",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.color && !code.is_empty() {
            writeln!(self.out, "  \x1b[{code}m{text}\x1b[0m")?;
        } else {
            writeln!(self.out, "  {text}")?;
        }
        self.out.flush()
    }

    pub(super) fn topology(&mut self, leader: &str, cluster: &ClusterStatus) -> io::Result<()> {
        self.line(
            Tone::Plain,
            &format!(
                "{}: {}, epoch {}, watched by {leader}",
                cluster.name, cluster.state, cluster.epoch
            ),
        )?;
        for server in &cluster.servers {
            let lag = match server.lag_seconds {
                Some(lag) if server.role != "primary" => format!("{lag:.1} s behind"),
                _ => String::new(),
            };
            let text = format!(
                "  {:<6}{:<9}{:<10}{:<9}{lag}",
                server.name, server.role, server.health, server.data_center
            );
            let tone = match (server.health.as_str(), server.role.as_str()) {
                ("healthy", "primary") => Tone::Good,
                ("healthy", _) => Tone::Plain,
                _ => Tone::Bad,
            };
            self.line(tone, text.trim_end())?;
        }
        Ok(())
    }

    pub(super) fn timeline(&mut self, events: &[Event], zero: WallTime) -> io::Result<()> {
        for event in events {
            let after = Duration::from_millis(event.at.0.saturating_sub(zero.0));
            self.line(Tone::Plain, &format!("+{:>6.3} s  {}", after.as_secs_f64(), event.text))?;
        }
        if events.is_empty() {
            self.line(Tone::Faint, "(the watchers reported no events)")?;
        }
        Ok(())
    }
}

/// A length of time as people say it.
pub(super) fn spoken(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
