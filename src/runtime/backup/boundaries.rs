//! Where a dump's SQL can be gone on with: it is read as the client program reads it, which carries it out.
//!
//! Before each schema, table, view and group of routines or events the dump programs write a comment line,
//! and what follows drops what it is about to make. A row or the body of a routine can hold the same line.
//! So only a line counts that begins outside of every statement, string and comment, with the usual
//! delimiter. Where that cannot be told any more, none does.

use crate::decision::backup::manifest::Sha256;
use sha2::Digest;

/// Longer lines are looked at as far as this when they begin a statement.
const LONGEST: usize = 4096;

/// How the lines begin that the programs write before what can be made anew.
const MARKS: &[&[u8]] = &[
    b"-- Current Database: `",
    b"-- Sequence structure for `",
    b"-- Table structure for table `",
    b"-- Temporary table structure for view `",
    b"-- Temporary view structure for view `",
    b"-- Final view structure for view `",
    b"-- Dumping events for database '",
    b"-- Dumping routines for database '",
];
const POSITION: &[u8] = b"SET @@GLOBAL.GTID_PURGED=";
const DELIMITER: &[u8] = b"delimiter ";

/// A place between statements, told by what comes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// So many bytes.
    pub at: u64,
    /// Their checksum.
    pub sum: Sha256,
}

/// What is found in SQL, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// To be carried out.
    Sql(&'a [u8]),
    /// The statement that gives a server of MySQL the dump's position.
    Position(&'a [u8]),
    /// From here on it can be carried out again, after the statement that chose the schema, if any did.
    Mark(Mark, &'a [u8]),
}

/// Where in SQL the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a line that began outside of statements; it is held until it is known what it is.
    Line,
    /// In a comment up to the end of the line, within a statement or outside.
    Comment { within: bool },
    /// Behind a statement, in its last line.
    Behind,
    /// In a statement.
    Within,
    /// In a string or a quoted name.
    Quoted(u8),
    /// Behind a backslash, perhaps in a string.
    Escaped(Option<u8>),
    /// In a comment that may have several lines; behind a star.
    Block { star: bool },
}

/// What ends a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delimiter {
    Usual,
    Double,
    /// One that the dump programs do not use.
    Unknown,
}

/// Reads SQL and finds the boundaries in it.
#[derive(Clone, Debug)]
pub(super) struct Boundaries {
    read: u64,
    sum: sha2::Sha256,
    place: Place,
    delimiter: Delimiter,
    held: Vec<u8>,
    /// The last three bytes of a statement that are not quoted, the newest last.
    last: [u8; 3],
    /// The line before was a comment without a word.
    bare: bool,
    /// Whether a backslash means anything in strings.
    escapes: bool,
    /// The statement is the one that sets the position.
    position: bool,
    /// The statement that chose the schema which is filled now.
    schema: Vec<u8>,
}

impl Boundaries {
    pub(super) fn new() -> Boundaries {
        Boundaries {
            read: 0,
            sum: sha2::Sha256::new(),
            place: Place::Line,
            delimiter: Delimiter::Usual,
            held: Vec::new(),
            last: [0; 3],
            bare: false,
            escapes: true,
            position: false,
            schema: Vec::new(),
        }
    }

    /// Reads on.
    pub(super) fn read(&mut self, bytes: &[u8], found: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = if self.place == Place::Line {
                self.hold(rest, found)
            } else {
                let (position, count) = (self.position, self.lex(rest));
                self.pass(&rest[..count], position, found);
                count
            };
            rest = &rest[count..];
        }
    }

    /// The SQL ends here. Where no statement is open, that is a boundary too.
    pub(super) fn end(&mut self, found: &mut impl FnMut(Piece<'_>)) {
        if !self.held.is_empty() {
            self.line(found);
        }
        let over = matches!(self.place, Place::Line | Place::Behind);
        let comment = self.place == Place::Comment { within: false };
        if (over || comment) && self.delimiter == Delimiter::Usual {
            found(Piece::Mark(self.mark(), &self.schema));
        }
    }

    fn mark(&self) -> Mark {
        Mark { at: self.read, sum: Sha256(self.sum.clone().finalize().into()) }
    }

    fn pass(&mut self, bytes: &[u8], position: bool, found: &mut impl FnMut(Piece<'_>)) {
        self.sum.update(bytes);
        self.read += bytes.len() as u64;
        found(if position { Piece::Position(bytes) } else { Piece::Sql(bytes) });
        if self.place == Place::Line {
            self.position = false;
        }
    }

    /// Holds bytes of a line; how many.
    fn hold(&mut self, bytes: &[u8], found: &mut impl FnMut(Piece<'_>)) -> usize {
        let room = (LONGEST - self.held.len()).min(bytes.len());
        let end = bytes[..room].iter().position(|byte| *byte == b'\n');
        let count = end.map_or(room, |end| end + 1);
        self.held.extend_from_slice(&bytes[..count]);
        if end.is_some() || self.held.len() == LONGEST {
            self.line(found);
        }
        count
    }

    /// Looks what a line is, or the beginning of a long one, that began outside of statements.
    fn line(&mut self, found: &mut impl FnMut(Piece<'_>)) {
        let line = std::mem::take(&mut self.held);
        let text = line.trim_ascii_end();
        let whole = line.ends_with(b"\n");
        let bare = std::mem::replace(&mut self.bare, text == b"--");
        let comment = text == b"--"
            || text.starts_with(b"#")
            || (text.starts_with(b"--") && text.get(2).is_some_and(u8::is_ascii_whitespace));
        if comment {
            let marks = MARKS.iter().any(|mark| text.starts_with(mark));
            if marks && bare && whole && self.delimiter == Delimiter::Usual {
                found(Piece::Mark(self.mark(), &self.schema));
            }
            self.place = if whole { Place::Line } else { Place::Comment { within: false } };
        } else if let Some(delimiter) = delimiter(text) {
            self.delimiter = delimiter;
        } else if !text.is_empty() {
            self.statement(text);
            self.place = Place::Within;
            self.last = [0; 3];
            self.lex(&line);
        }
        let position = self.position;
        self.pass(&line, position, found);
    }

    /// Notes what a statement means for what follows.
    fn statement(&mut self, text: &[u8]) {
        if text.starts_with(b"USE `") {
            self.schema = text.to_vec();
        }
        self.position = text.starts_with(POSITION);
        let words = text.to_ascii_uppercase();
        let has = |what: &[u8]| words.windows(what.len()).any(|part| part == what);
        if words.starts_with(b"/*!") && has(b"SET SQL_MODE") {
            self.escapes = !has(b"NO_BACKSLASH_ESCAPES");
        }
    }

    /// Reads on in a statement or behind it, up to the next line that begins outside; how many bytes.
    fn lex(&mut self, bytes: &[u8]) -> usize {
        let mut read = 0;
        while let Some((byte, _)) = bytes[read..].split_first()
            && self.place != Place::Line
        {
            read += match self.place {
                Place::Quoted(quote) => self.quoted(quote, &bytes[read..]),
                Place::Comment { within } => self.comment(within, &bytes[read..]),
                _ => {
                    self.one(*byte);
                    1
                }
            };
        }
        read
    }

    fn quoted(&mut self, quote: u8, bytes: &[u8]) -> usize {
        let escapes = self.escapes && quote != b'`';
        let ends = |byte: &u8| *byte == quote || (escapes && *byte == b'\\');
        let Some(end) = bytes.iter().position(ends) else { return bytes.len() };
        self.last = [0; 3];
        self.place = match bytes[end] == quote {
            true => Place::Within,
            false => Place::Escaped(Some(quote)),
        };
        end + 1
    }

    fn comment(&mut self, within: bool, bytes: &[u8]) -> usize {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return bytes.len() };
        self.place = if within { Place::Within } else { Place::Line };
        end + 1
    }

    fn one(&mut self, byte: u8) {
        match self.place {
            Place::Escaped(within) => self.place = within.map_or(Place::Within, Place::Quoted),
            Place::Block { star: true } if byte == b'/' => {
                (self.place, self.last) = (Place::Within, [0; 3]);
            }
            Place::Block { .. } => self.place = Place::Block { star: byte == b'*' },
            Place::Behind if byte == b'\n' => self.place = Place::Line,
            Place::Behind if byte.is_ascii_whitespace() => {}
            Place::Behind => {
                (self.place, self.last) = (Place::Within, [0; 3]);
                self.within(byte);
            }
            _ => self.within(byte),
        }
    }

    fn within(&mut self, byte: u8) {
        let [third, second, first] = self.last;
        // Comments of these kinds hold what is carried out.
        let opened = [second, first] == *b"/*" && !b"!+M".contains(&byte);
        if opened || ([third, second, first] == *b"/*M" && byte != b'!') {
            self.place = Place::Block { star: byte == b'*' };
            return;
        }
        if [second, first] == *b"--" && byte.is_ascii_whitespace() {
            self.last = [0; 3];
            if byte != b'\n' {
                self.place = Place::Comment { within: true };
            }
            return;
        }
        self.last = [second, first, byte];
        match byte {
            b'\'' | b'"' | b'`' => self.place = Place::Quoted(byte),
            b'#' => self.place = Place::Comment { within: true },
            b'\\' => self.place = Place::Escaped(None),
            b';' if self.delimiter == Delimiter::Usual => self.place = Place::Behind,
            b';' if self.delimiter == Delimiter::Double && first == b';' => {
                self.place = Place::Behind;
            }
            _ => return,
        }
        self.last = [0; 3];
    }
}

/// What a line sets as delimiter, if it does.
fn delimiter(text: &[u8]) -> Option<Delimiter> {
    let head = text.get(..DELIMITER.len())?;
    if !head.eq_ignore_ascii_case(DELIMITER) {
        return None;
    }
    Some(match text[DELIMITER.len()..].trim_ascii() {
        b";" => Delimiter::Usual,
        b";;" => Delimiter::Double,
        _ => Delimiter::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that begin at the boundaries which are found, whatever the pieces that are read.
    fn found(sql: &str) -> Vec<&str> {
        let sizes = [1, 2, 3, 7, 4096, usize::MAX];
        let mut all = sizes.iter().map(|size| found_in(sql, *size));
        let first = all.next().unwrap();
        assert!(all.all(|other| other == first), "{sql}");
        first
    }

    fn found_in(sql: &str, size: usize) -> Vec<&str> {
        let (mut boundaries, mut marks) = (Boundaries::new(), Vec::new());
        let (mut passed, mut positions) = (Vec::new(), 0);
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Sql(bytes) => passed.extend_from_slice(bytes),
            Piece::Position(bytes) => positions += bytes.len(),
            Piece::Mark(mark, _) => {
                let before = &sql.as_bytes()[..usize::try_from(mark.at).unwrap()];
                assert_eq!(mark.sum, Sha256(sha2::Sha256::digest(before).into()));
                marks.push(mark.at);
            }
        };
        for part in sql.as_bytes().chunks(size.min(sql.len())) {
            boundaries.read(part, &mut take);
        }
        boundaries.end(&mut take);
        assert_eq!(passed.len() + positions, sql.len(), "nothing is lost");
        let line = |at: u64| sql[usize::try_from(at).unwrap()..].lines().next().unwrap_or_default();
        marks.into_iter().map(line).collect()
    }

    const LINES: &str = "--\n-- Table structure for table `x`\n--\n";

    #[test]
    fn lines_of_the_programs_are_boundaries() {
        let sql = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump\n--\n-- Host: h\n\
            /*!40101 SET NAMES utf8mb4 */;\nSET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'a:1,\nb:2';\n\n\
            --\n-- Current Database: `s`\n--\n\nCREATE DATABASE /*!32312 IF NOT EXISTS*/ `s`;\n\nUSE `s`;\n\n\
            --\n-- Table structure for table `t`\n--\n\nDROP TABLE IF EXISTS `t`;\nCREATE TABLE `t` (\n  \
            `a` int DEFAULT NULL COMMENT 'it''s \\'; -- x'\n);\n\
            --\n-- Dumping data for table `t`\n--\nINSERT INTO `t` VALUES (1),(2);\n\
            --\n-- Dumping routines for database 's'\n--\n-- Dump completed on 2026";
        let marks = [
            "-- Current Database: `s`",
            "-- Table structure for table `t`",
            "-- Dumping routines for database 's'",
            "",
        ];
        assert_eq!(found(sql), marks);
    }

    #[test]
    fn what_rows_and_bodies_hold_is_none() {
        let rows = format!("INSERT INTO t VALUES ('a\n{LINES}'),(\"{LINES}\"),('\\'\n{LINES}');\n");
        let comment = format!("CREATE /* it's\n{LINES} */ TABLE t (a int);\n# it's\n");
        let name = format!("CREATE TABLE `a\\\n{LINES}` (a int);\n");
        let body = |text: &str| {
            format!("DELIMITER ;;\nCREATE PROCEDURE p() BEGIN {text} END ;;\nDELIMITER ;\n")
        };
        let bodies = [
            LINES.to_owned(),
            format!("SELECT 'x\nDELIMITER ;\n{LINES}';"),
            format!("SELECT 1; -- it's\nSELECT 2;\n{LINES}"),
            format!("SELECT 'it''s ;;\n{LINES}', \"';;\n{LINES}\", `;;\n{LINES}`;"),
            format!("/* ;;\nDELIMITER ;\n{LINES} */ SELECT 5--1;"),
            format!("SELECT 4 /*!50000 + ';;\n{LINES}' */; # ;;\n"),
        ];
        let all = [rows, comment, name].into_iter().chain(bodies.iter().map(|text| body(text)));
        for sql in all {
            assert_eq!(found(&sql), [""], "{sql}");
            let followed = format!("{sql}{LINES}DROP TABLE x;\n");
            assert_eq!(found(&followed), ["-- Table structure for table `x`", ""], "{sql}");
        }
    }

    #[test]
    fn backslashes_mean_what_the_session_says() {
        let mode = |modes: &str| format!("/*!50003 SET sql_mode              = '{modes}' */ ;\n");
        let body = "DELIMITER ;;\nCREATE PROCEDURE p() SELECT '\\';;\nDELIMITER ;\n";
        let sql = format!("{}{body}{LINES}", mode("NO_BACKSLASH_ESCAPES,ANSI_QUOTES"));
        assert_eq!(found(&sql).len(), 2);
        let sql = format!("{}{body}{LINES}", mode("STRICT_TRANS_TABLES"));
        assert!(found(&sql).is_empty(), "a string is open at the end");
        let unknown = format!("DELIMITER //\nSELECT 1 //\nDELIMITER ;\n{LINES}");
        assert!(found(&unknown).is_empty(), "nobody knows where that ends");
    }
}
