//! Global transaction ids: what a server has executed or received, as a set that can be compared.
//!
//! MySQL: sets of `source-uuid[:tag]:intervals` (tags since 8.3).
//! MariaDB: the newest sequence number per replication domain and originating server, as
//! `gtid_binlog_state` and `gtid_slave_pos` give it.

mod parts;

use super::topology::Flavor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The transactions a server holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Gtids {
    /// A MySQL GTID set.
    MySql(MySqlGtids),
    /// A MariaDB position.
    MariaDb(MariaDbGtids),
}

/// A MySQL GTID set: for each source and tag its sorted, disjoint, non-adjacent intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MySqlGtids(BTreeMap<Source, Vec<(u64, u64)>>);

/// A MariaDB position: the newest sequence number per domain and originating server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaDbGtids(BTreeMap<u32, BTreeMap<u32, u64>>);

/// Who numbered a MySQL transaction: the server's UUID and the tag, empty when untagged.
type Source = (String, String);

/// A text that is no GTID set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is not part of a {flavor} GTID set")]
pub struct GtidError {
    part: String,
    flavor: Flavor,
}

impl Gtids {
    /// The set without any transaction.
    pub fn empty(flavor: Flavor) -> Gtids {
        match flavor {
            Flavor::MySql => Gtids::MySql(MySqlGtids::default()),
            Flavor::MariaDb => Gtids::MariaDb(MariaDbGtids::default()),
        }
    }

    /// Reads what a server of that flavour printed; white space and an empty text are fine.
    pub fn parse(flavor: Flavor, text: &str) -> Result<Gtids, GtidError> {
        match flavor {
            Flavor::MySql => MySqlGtids::parse(text).map(Gtids::MySql),
            Flavor::MariaDb => MariaDbGtids::parse(text).map(Gtids::MariaDb),
        }
    }

    /// Which product numbered these transactions.
    pub fn flavor(&self) -> Flavor {
        match self {
            Gtids::MySql(_) => Flavor::MySql,
            Gtids::MariaDb(_) => Flavor::MariaDb,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Gtids::MySql(set) => set.0.is_empty(),
            Gtids::MariaDb(position) => position.0.is_empty(),
        }
    }

    /// Whether every transaction of `other` is here; never across flavours.
    pub fn contains(&self, other: &Gtids) -> bool {
        match (self, other) {
            (Gtids::MySql(a), Gtids::MySql(b)) => b.minus(a).0.is_empty(),
            (Gtids::MariaDb(a), Gtids::MariaDb(b)) => b.minus(a).0.is_empty(),
            (_, b) => b.is_empty(),
        }
    }

    /// All transactions of both; of `self` alone across flavours.
    #[must_use]
    pub fn union(&self, other: &Gtids) -> Gtids {
        match (self, other) {
            (Gtids::MySql(a), Gtids::MySql(b)) => Gtids::MySql(a.plus(b)),
            (Gtids::MariaDb(a), Gtids::MariaDb(b)) => Gtids::MariaDb(a.plus(b)),
            (a, _) => a.clone(),
        }
    }

    /// What is here and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Gtids) -> Gtids {
        match (self, other) {
            (Gtids::MySql(a), Gtids::MySql(b)) => Gtids::MySql(a.minus(b)),
            (Gtids::MariaDb(a), Gtids::MariaDb(b)) => Gtids::MariaDb(a.minus(b)),
            (a, _) => a.clone(),
        }
    }

    /// How many transactions are here and not in `other`; an upper bound on MariaDB, whose
    /// sequence numbers may have holes.
    pub fn count_beyond(&self, other: &Gtids) -> u64 {
        match (self, other) {
            (Gtids::MySql(a), Gtids::MySql(b)) => a.minus(b).count(),
            (Gtids::MariaDb(a), Gtids::MariaDb(b)) => a.count_beyond(b),
            (Gtids::MySql(a), _) => a.count(),
            (Gtids::MariaDb(a), _) => a.count_beyond(&MariaDbGtids::default()),
        }
    }

    /// Without what that server itself numbered.
    #[must_use]
    pub fn without_origin(&self, uuid: Option<&str>, server_id: u32) -> Gtids {
        match self {
            Gtids::MySql(set) => {
                let foreign = |source: &Source| Some(source.0.as_str()) != uuid;
                let kept = set.0.iter().filter(|(source, _)| foreign(source));
                Gtids::MySql(MySqlGtids(kept.map(|(s, i)| (s.clone(), i.clone())).collect()))
            }
            Gtids::MariaDb(position) => {
                let mut kept = MariaDbGtids::default();
                for (domain, server, sequence) in position.entries() {
                    if server != server_id {
                        kept.raise(domain, server, sequence);
                    }
                }
                Gtids::MariaDb(kept)
            }
        }
    }

    /// What that server itself numbered.
    #[must_use]
    pub fn of_origin(&self, uuid: Option<&str>, server_id: u32) -> Gtids {
        self.without(&self.without_origin(uuid, server_id))
    }

    /// What is here and not in `part`, which is a part of this; on MariaDB without the origins that
    /// it names, whatever their numbers.
    #[must_use]
    pub fn without(&self, part: &Gtids) -> Gtids {
        match (self, part) {
            (Gtids::MariaDb(position), Gtids::MariaDb(part)) => {
                let mut kept = MariaDbGtids::default();
                for (domain, server, sequence) in position.entries() {
                    if part.0.get(&domain).is_none_or(|servers| !servers.contains_key(&server)) {
                        kept.raise(domain, server, sequence);
                    }
                }
                Gtids::MariaDb(kept)
            }
            (all, part) => all.minus(part),
        }
    }

    /// The same position naming that server too: in each domain where it does not, the server's
    /// numbers count as here up to the newest in `until`. A MySQL set as it is.
    #[must_use]
    pub fn naming(&self, server_id: u32, until: &Gtids) -> Gtids {
        match (self, until) {
            (Gtids::MariaDb(position), Gtids::MariaDb(until)) => {
                Gtids::MariaDb(position.naming(server_id, until))
            }
            (gtids, _) => gtids.clone(),
        }
    }

    /// The same position with those domains of `other` that it does not name. A MySQL set as it is.
    #[must_use]
    pub fn with_domains_of(&self, other: &Gtids) -> Gtids {
        match (self, other) {
            (Gtids::MariaDb(position), Gtids::MariaDb(other)) => {
                let mut all = other.clone();
                all.0.extend(position.clone().0);
                Gtids::MariaDb(all)
            }
            (gtids, _) => gtids.clone(),
        }
    }

    /// The same position with one entry per domain, the newest, as `MASTER_GTID_WAIT` and
    /// `gtid_slave_pos` want it; a MySQL set as it is.
    pub fn to_wait_text(&self) -> String {
        match self {
            Gtids::MySql(_) => self.to_string(),
            Gtids::MariaDb(position) => position.newest_text(),
        }
    }
}

impl MySqlGtids {
    fn parse(text: &str) -> Result<MySqlGtids, GtidError> {
        let mut set = MySqlGtids::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || GtidError { part: part.to_owned(), flavor: Flavor::MySql };
            let mut pieces = part.split(':').map(str::trim);
            let uuid = pieces.next().unwrap_or_default().to_ascii_lowercase();
            if uuid.len() != 36 || !uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
                return Err(wrong());
            }
            let mut tag = String::new();
            let mut found = false;
            for piece in pieces {
                if piece.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = tag_of(piece).ok_or_else(wrong)?;
                    continue;
                }
                let (first, last) = interval_of(piece).ok_or_else(wrong)?;
                set.insert((uuid.clone(), tag.clone()), first, last);
                found = true;
            }
            if !found {
                return Err(wrong());
            }
        }
        Ok(set)
    }

    fn insert(&mut self, source: Source, first: u64, last: u64) {
        let intervals = self.0.entry(source).or_default();
        intervals.push((first, last));
        normalize(intervals);
    }

    fn plus(&self, other: &MySqlGtids) -> MySqlGtids {
        let mut sum = self.clone();
        for (source, intervals) in &other.0 {
            let into = sum.0.entry(source.clone()).or_default();
            into.extend_from_slice(intervals);
            normalize(into);
        }
        sum
    }

    fn minus(&self, other: &MySqlGtids) -> MySqlGtids {
        let mut rest = BTreeMap::new();
        for (source, intervals) in &self.0 {
            let left = match other.0.get(source) {
                None => intervals.clone(),
                Some(taken) => intervals_minus(intervals, taken),
            };
            if !left.is_empty() {
                rest.insert(source.clone(), left);
            }
        }
        MySqlGtids(rest)
    }

    fn count(&self) -> u64 {
        self.0.values().flatten().fold(0, |sum, (first, last)| sum.saturating_add(last - first + 1))
    }
}

impl MariaDbGtids {
    fn parse(text: &str) -> Result<MariaDbGtids, GtidError> {
        let mut position = MariaDbGtids::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || GtidError { part: part.to_owned(), flavor: Flavor::MariaDb };
            let mut numbers = part.split('-');
            let mut next = || numbers.next().and_then(|number| number.parse::<u64>().ok());
            let (Some(domain), Some(server), Some(sequence)) = (next(), next(), next()) else {
                return Err(wrong());
            };
            if numbers.next().is_some() {
                return Err(wrong());
            }
            let domain = u32::try_from(domain).map_err(|_| wrong())?;
            let server = u32::try_from(server).map_err(|_| wrong())?;
            position.raise(domain, server, sequence);
        }
        Ok(position)
    }

    fn raise(&mut self, domain: u32, server: u32, sequence: u64) {
        let newest = self.0.entry(domain).or_default().entry(server).or_default();
        *newest = sequence.max(*newest);
    }

    fn plus(&self, other: &MariaDbGtids) -> MariaDbGtids {
        let mut sum = self.clone();
        for (domain, server, sequence) in other.entries() {
            sum.raise(domain, server, sequence);
        }
        sum
    }

    /// Entries of `self` that `other` does not reach.
    ///
    /// Where `other` knows the originating server, that server's own number decides, so that a
    /// deposed primary's last transactions are seen although a newer primary has gone beyond
    /// their numbers. Where it does not (a server restored from a backup remembers only one entry
    /// per domain), its newest number of the domain decides.
    fn minus(&self, other: &MariaDbGtids) -> MariaDbGtids {
        let mut rest = MariaDbGtids::default();
        for (domain, server, sequence) in self.entries() {
            let reached = other.0.get(&domain).map_or(0, |servers| {
                servers.get(&server).copied().unwrap_or_else(|| newest(servers))
            });
            if sequence > reached {
                rest.raise(domain, server, sequence);
            }
        }
        rest
    }

    fn naming(&self, server_id: u32, until: &MariaDbGtids) -> MariaDbGtids {
        let mut named = self.clone();
        for (domain, servers) in &mut named.0 {
            let reached = until.0.get(domain).map_or(0, newest);
            servers.entry(server_id).or_insert(reached);
        }
        named
    }

    fn count_beyond(&self, other: &MariaDbGtids) -> u64 {
        let rest = self.minus(other);
        rest.0.iter().fold(0, |sum, (domain, servers)| {
            let reached = other.0.get(domain).map_or(0, newest);
            let ahead = newest(servers).saturating_sub(reached);
            // A divergent tail may lie below the other's newest number; it still counts.
            let divergent = u64::try_from(servers.len()).unwrap_or(u64::MAX);
            sum.saturating_add(ahead.max(divergent))
        })
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32, u64)> + '_ {
        self.0.iter().flat_map(|(domain, servers)| {
            servers.iter().map(|(server, sequence)| (*domain, *server, *sequence))
        })
    }

    fn newest_text(&self) -> String {
        let mut text = Vec::new();
        for (domain, servers) in &self.0 {
            if let Some((server, sequence)) = servers.iter().max_by_key(|(_, sequence)| **sequence)
            {
                text.push(format!("{domain}-{server}-{sequence}"));
            }
        }
        text.join(",")
    }
}

fn newest(servers: &BTreeMap<u32, u64>) -> u64 {
    servers.values().copied().max().unwrap_or(0)
}

/// MySQL's rule for tags: a letter or underscore, then up to 31 letters, digits, underscores.
fn tag_of(piece: &str) -> Option<String> {
    let plain = piece.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (piece.len() <= 32 && plain).then(|| piece.to_ascii_lowercase())
}

fn interval_of(piece: &str) -> Option<(u64, u64)> {
    let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    // MySQL numbers transactions from 1 to 2^63 - 2.
    (first >= 1 && first <= last && last < i64::MAX as u64).then_some((first, last))
}

/// Sorts and merges overlapping or adjacent intervals.
fn normalize(intervals: &mut Vec<(u64, u64)>) {
    intervals.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(intervals.len());
    for &(first, last) in intervals.iter() {
        match merged.last_mut() {
            Some(previous) if first <= previous.1 + 1 => previous.1 = previous.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    *intervals = merged;
}

fn intervals_minus(from: &[(u64, u64)], taken: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = Vec::new();
    for &(first, last) in from {
        let mut start = first;
        for &(gone, until) in taken.iter().filter(|(a, b)| *b >= first && *a <= last) {
            if gone > start {
                left.push((start, gone - 1));
            }
            start = start.max(until + 1);
        }
        if start <= last {
            left.push((start, last));
        }
    }
    left
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtids::MySql(set) => set.fmt(f),
            Gtids::MariaDb(position) => position.fmt(f),
        }
    }
}

impl fmt::Debug for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gtids({self})")
    }
}

impl fmt::Display for MySqlGtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written: Option<&str> = None;
        for ((uuid, tag), intervals) in &self.0 {
            if written != Some(uuid.as_str()) {
                f.write_str(if written.is_some() { "," } else { "" })?;
                f.write_str(uuid)?;
                written = Some(uuid);
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (first, last) in intervals {
                if first == last {
                    write!(f, ":{first}")?;
                } else {
                    write!(f, ":{first}-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for MariaDbGtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (domain, server, sequence)) in self.entries().enumerate() {
            write!(f, "{}{domain}-{server}-{sequence}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl From<Gtids> for String {
    /// With the flavour in front, since an empty set of either prints alike.
    fn from(gtids: Gtids) -> String {
        match gtids {
            Gtids::MySql(set) => format!("mysql {set}"),
            Gtids::MariaDb(position) => format!("mariadb {position}"),
        }
    }
}

impl TryFrom<String> for Gtids {
    type Error = GtidError;

    /// Reads what [`String::from`] wrote; without the flavour in front it is told by the form.
    fn try_from(text: String) -> Result<Gtids, GtidError> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("mysql") {
            return Gtids::parse(Flavor::MySql, rest);
        }
        if let Some(rest) = text.strip_prefix("mariadb") {
            return Gtids::parse(Flavor::MariaDb, rest);
        }
        let flavor = if text.contains(':') { Flavor::MySql } else { Flavor::MariaDb };
        Gtids::parse(flavor, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "8f1ac2f0-71ca-11e1-9e33-c80aa9429562";

    fn mysql(text: &str) -> Gtids {
        Gtids::parse(Flavor::MySql, &text.replace('A', A).replace('B', B)).unwrap()
    }

    fn mariadb(text: &str) -> Gtids {
        Gtids::parse(Flavor::MariaDb, text).unwrap()
    }

    #[test]
    fn mysql_sets_are_normalized() {
        assert_eq!(mysql("A:1-5:6:10,B:3").to_string(), format!("{A}:1-6:10,{B}:3"));
        assert_eq!(mysql("A:1-3,\nA:2-9").to_string(), format!("{A}:1-9"));
        assert_eq!(mysql("A:1-3:shop:1:4").to_string(), format!("{A}:1-3:shop:1:4"));
        assert_eq!(mysql("A:shop:7").to_string(), format!("{A}:shop:7"));
        assert!(mysql("").is_empty());
    }

    #[test]
    fn mysql_sets_compare_by_content() {
        let all = mysql("A:1-10:tag:1-2,B:1-5");
        assert!(all.contains(&mysql("A:2-4:9,B:5")));
        assert!(!all.contains(&mysql("A:11")));
        assert!(!all.contains(&mysql("A:tag:3")));
        assert_eq!(all.minus(&mysql("A:3-4:8:tag:2")), mysql("A:1-2:5-7:9-10:tag:1,B:1-5"));
        assert_eq!(all.count_beyond(&mysql("A:1-10")), 7);
        assert_eq!(mysql("A:1-3").union(&mysql("A:4,B:1")), mysql("A:1-4,B:1"));
    }

    #[test]
    fn mariadb_positions_compare_by_origin() {
        let new_primary = mariadb("0-1-104,0-2-107");
        assert!(new_primary.contains(&mariadb("0-1-104")));
        assert!(!new_primary.contains(&mariadb("0-1-105")), "a divergent tail was overlooked");
        assert!(mariadb("0-2-120").contains(&mariadb("0-1-100,0-2-120")), "restored server");
        assert_eq!(new_primary.count_beyond(&mariadb("0-1-104")), 3);
        assert_eq!(mariadb("0-1-105").count_beyond(&new_primary), 1);
        assert_eq!(new_primary.to_wait_text(), "0-2-107");
    }

    #[test]
    fn a_number_that_others_have_passed_may_still_be_ones_own() {
        let primary = mariadb("0-1-500,7-1-3");
        let alone = mariadb("0-1-100,0-2-101");
        assert!(primary.contains(&alone), "the primary names server 2 nowhere");
        let named = primary.naming(2, &mariadb("0-1-100"));
        assert_eq!(alone.minus(&named), mariadb("0-2-101"));
        assert!(named.contains(&mariadb("0-1-500,0-2-100")));
        let known = mariadb("0-1-500,0-2-90").naming(2, &mariadb("0-1-100"));
        assert_eq!(known, mariadb("0-1-500,0-2-90"), "what it names itself counts");
    }

    #[test]
    fn what_one_server_numbered_is_told_apart() {
        let (a, b) = (mysql("A:1-699"), mysql("A:1-699,B:1-5"));
        let uuid = A.to_ascii_lowercase();
        assert_eq!(b.of_origin(Some(&uuid), 1), a);
        assert_eq!(b.without(&mysql("A:647-699")), mysql("A:1-646,B:1-5"));
        let forked = mariadb("0-1-699,0-3-650");
        assert_eq!(forked.of_origin(None, 1), mariadb("0-1-699"));
        assert_eq!(forked.without(&mariadb("0-1-699")), mariadb("0-3-650"), "below its number");
    }

    #[test]
    fn domains_that_a_position_does_not_name_come_from_another() {
        let before = mariadb("0-1-500,7-1-3");
        assert_eq!(mariadb("").with_domains_of(&before), before);
        assert_eq!(mariadb("0-2-90").with_domains_of(&before), mariadb("0-2-90,7-1-3"));
    }

    #[test]
    fn broken_texts_are_named() {
        for text in ["x", "A", "A:", "A:0", "A:5-3", "A:1-99999999999999999999", "A:a!b:1"] {
            let text = text.replace('A', A);
            assert!(Gtids::parse(Flavor::MySql, &text).is_err(), "{text} was taken");
        }
        for text in ["1-2", "1-2-3-4", "a-b-c", "1-2-x", "-1-2-3", "99999999999-1-1"] {
            assert!(Gtids::parse(Flavor::MariaDb, text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn both_flavours_survive_storage() {
        for gtids in [mysql("A:1-5,B:3"), mysql(""), mariadb("0-1-5,1-2-3"), mariadb("")] {
            let text = String::from(gtids.clone());
            assert_eq!(Gtids::try_from(text).unwrap(), gtids);
        }
    }
}
