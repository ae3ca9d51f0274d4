//! The position that a dump names, found in what was kept of its beginning and its end.

use crate::decision::gtid::Gtids;
use crate::decision::topology::Flavor;

/// The longest beginning in which MySQL's position stands: a set of tens of thousands of intervals.
const MOST_HEAD: usize = 1 << 20;
/// Within so many of its last bytes a dump of MariaDB names its position.
const MOST_TAIL: usize = 64 << 10;

/// The beginning and the end of a stream.
#[derive(Debug, Default)]
pub(super) struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Ends {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let room = (MOST_HEAD - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        let from = bytes.len().saturating_sub(MOST_TAIL);
        self.tail.extend_from_slice(&bytes[from..]);
        let excess = self.tail.len().saturating_sub(MOST_TAIL);
        self.tail.drain(..excess);
    }

    /// Whether the program says itself that it came to its end.
    pub(super) fn is_complete(&self) -> bool {
        let text = String::from_utf8_lossy(&self.tail);
        let last = text.trim_end().rsplit('\n').next().unwrap_or_default();
        last.starts_with("-- Dump completed")
    }

    /// Every transaction that is in the dump. No row has a line of its own before it in a dump of
    /// MySQL, and none after it in one of MariaDB.
    pub(super) fn position(&self, flavor: Flavor) -> Option<Gtids> {
        match flavor {
            Flavor::MySql => {
                let text = String::from_utf8_lossy(&self.head);
                let (_, rest) = text.split_once("\nSET @@GLOBAL.GTID_PURGED=")?;
                let (statement, _) = rest.split_once(';')?;
                let mut quoted = statement.rsplit('\'');
                let (_, position) = (quoted.next()?, quoted.next()?);
                Gtids::parse(flavor, position).ok()
            }
            Flavor::MariaDb => {
                let text = String::from_utf8_lossy(&self.tail);
                let (_, rest) = text.rsplit_once("\n-- SET GLOBAL gtid_slave_pos='")?;
                let (position, _) = rest.split_once('\'')?;
                Gtids::parse(flavor, position).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(parts: &[&str]) -> Ends {
        let mut ends = Ends::default();
        parts.iter().for_each(|part| ends.take(part.as_bytes()));
        ends
    }

    #[test]
    fn both_products_name_their_position() {
        let uuid = "1da1663f-e691-11f1-aa06-02fc00000001";
        let set = format!("{uuid}:1-17,\n{}:1", uuid.replace('f', "e"));
        let text = format!("-- x\nSET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '{set}';\nCREATE");
        let found = ends(&[&text[..40], &text[40..]]).position(Flavor::MySql);
        assert_eq!(found, Some(Gtids::parse(Flavor::MySql, &set).unwrap()));
        let old = format!("\nSET @@GLOBAL.GTID_PURGED='{uuid}:1-3';");
        let found = ends(&[&old]).position(Flavor::MySql).map(|found| found.to_string());
        assert_eq!(found, Some(format!("{uuid}:1-3")));
        let filler = "x".repeat(200_000);
        let end = "\n-- SET GLOBAL gtid_slave_pos='0-1-7,1-2-3';\n--";
        let found = ends(&[&filler, end]).position(Flavor::MariaDb);
        assert_eq!(found, Some(Gtids::parse(Flavor::MariaDb, "0-1-7,1-2-3").unwrap()));
        assert_eq!(ends(&["-- MariaDB dump"]).position(Flavor::MariaDb), None);
        assert_eq!(ends(&["-- MySQL dump"]).position(Flavor::MySql), None);
    }

    #[test]
    fn only_a_whole_dump_says_that_it_is() {
        assert!(ends(&["x", "\n\n-- Dump completed on 2026-11-22 16:25:24\n"]).is_complete());
        assert!(!ends(&["INSERT INTO `a` VALUES ('-- Dump completed"]).is_complete());
        assert!(!ends(&["-- Dump completed on 2026\nINSERT"]).is_complete());
    }
}
