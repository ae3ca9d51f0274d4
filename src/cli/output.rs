//! Where text goes, how wide it may be, and whether it has colour.

use super::args::{Color, Global};
use comfy_table::{ContentArrangement, Table, presets};
use std::io::{self, IsTerminal, Write};

/// What a command prints to.
#[derive(Debug)]
pub struct Output {
    stdout: io::Stdout,
    /// Whether to colour.
    pub color: bool,
    /// How many columns a line may have.
    pub width: u16,
}

impl Output {
    /// Standard output, with the colour asked for and `COLUMNS` as its width.
    pub fn new(global: &Global) -> Output {
        let stdout = io::stdout();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => wanted && stdout.is_terminal(),
        };
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse::<u16>().ok());
        let width = columns.unwrap_or(80).clamp(40, 400);
        Output { stdout, color, width }
    }

    /// Prints a text, coloured if wanted.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let text = if self.color { paint(text) } else { text.to_owned() };
        ended(self.stdout.write_all(text.as_bytes()).and_then(|()| self.stdout.flush()))
    }

    /// Prints bytes as they are, and a newline.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.stdout.write_all(bytes).and_then(|()| self.stdout.write_all(b"\n"));
        ended(written.and_then(|()| self.stdout.flush()))
    }
}

/// Whoever closed the pipe has read enough: that is no error.
fn ended(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A table without lines that fits `width` columns.
pub fn table(header: &[&str], width: u16) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width).set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table
}

/// A table as text, without blanks at the ends of lines.
pub fn plain(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A text broken into lines of at most `width` columns, each after the first indented.
pub fn wrapped(text: &str, indent: usize, width: u16) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && indent + line + 1 + word.chars().count() > usize::from(width) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

const GOOD: [&str; 4] = ["healthy", "done", "running", "eligible"];
const DOUBTFUL: [&str; 7] =
    ["degraded", "maintenance", "failing_over", "switching_over", "unknown", "waiting", "skipped"];
const BAD: [&str; 8] = [
    "no_primary",
    "not_adopted",
    "stuck",
    "abandoned",
    "failed",
    "unreachable",
    "excluded",
    "primary_dead",
];

/// Colours the words that say how things stand; widths stay as they are.
fn paint(text: &str) -> String {
    let mut painted = String::with_capacity(text.len());
    for part in text.split_inclusive([' ', '\n', ',', ':']) {
        let word = part.trim_end_matches([' ', '\n', ',', ':']);
        let color = if GOOD.contains(&word) {
            32
        } else if DOUBTFUL.contains(&word) {
            33
        } else if BAD.contains(&word) {
            31
        } else {
            painted.push_str(part);
            continue;
        };
        painted.push_str(&format!("\u{1b}[{color}m{word}\u{1b}[0m{}", &part[word.len()..]));
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_painted_and_lines_are_broken_in_time() {
        assert_eq!(paint("a healthy,\n"), "a \u{1b}[32mhealthy\u{1b}[0m,\n");
        assert_eq!(paint("unhealthy"), "unhealthy");
        let text = wrapped("one two three four", 2, 10);
        assert_eq!(text, "one two\n  three\n  four");
    }
}
