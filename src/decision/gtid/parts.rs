//! Taking sets apart and growing them one transaction at a time.

use super::{Gtids, MariaDbGtids, normalize};

impl Gtids {
    /// Takes in all of the other; across flavours nothing.
    pub fn add(&mut self, other: &Gtids) {
        match (self, other) {
            (Gtids::MySql(set), Gtids::MySql(other)) => {
                for (source, more) in &other.0 {
                    let intervals = set.0.entry(source.clone()).or_default();
                    for &(first, last) in more {
                        match intervals.last_mut() {
                            // The usual case: the next number.
                            Some(newest) if newest.1 + 1 == first => newest.1 = last,
                            _ => {
                                intervals.push((first, last));
                                normalize(intervals);
                            }
                        }
                    }
                }
            }
            (Gtids::MariaDb(position), Gtids::MariaDb(other)) => {
                for (domain, server, sequence) in other.entries() {
                    position.raise(domain, server, sequence);
                }
            }
            _ => {}
        }
    }

    /// What both have in common. On MariaDB it is a position that both have passed, without those domains in
    /// which there is none.
    #[must_use]
    pub fn common(&self, other: &Gtids) -> Gtids {
        match (self, other) {
            (Gtids::MySql(_), Gtids::MySql(_)) => self.minus(&self.minus(other)),
            (Gtids::MariaDb(a), Gtids::MariaDb(b)) => {
                let mut both = MariaDbGtids::default();
                for (domain, server, sequence) in a.entries() {
                    let Some(servers) = b.0.get(&domain) else { continue };
                    match servers.get(&server) {
                        Some(known) => both.raise(domain, server, sequence.min(*known)),
                        // One that is forgotten was passed when any newer number was reached.
                        None if super::newest(servers) >= sequence => {
                            both.raise(domain, server, sequence);
                        }
                        None => {}
                    }
                }
                Gtids::MariaDb(both)
            }
            (set, _) => Gtids::empty(set.flavor()),
        }
    }

    /// Whether one of these transactions, given as an entry of its own, is named by `self` and was not yet
    /// reached by `before`. Unlike [`Gtids::contains`], on MariaDB this goes by the number's own server: it
    /// tells a server's lost transactions from those with which another one went on.
    pub fn names_beyond(&self, before: &Gtids, one: &Gtids) -> bool {
        match (self, before, one) {
            (Gtids::MySql(set), Gtids::MySql(_), Gtids::MySql(one)) => one.minus(set).0.is_empty(),
            (Gtids::MariaDb(set), Gtids::MariaDb(before), Gtids::MariaDb(one)) => {
                one.entries().all(|(domain, server, sequence)| {
                    let known = set.0.get(&domain).and_then(|servers| servers.get(&server));
                    let reached = before.0.get(&domain).map_or(0, |servers| {
                        servers.get(&server).copied().unwrap_or_else(|| super::newest(servers))
                    });
                    known.is_some_and(|newest| sequence <= *newest) && sequence > reached
                })
            }
            _ => false,
        }
    }

    /// Each part as a text of its own: what one server numbered, on MySQL under one tag.
    pub fn parts(&self) -> Vec<String> {
        match self {
            Gtids::MySql(set) => {
                let part = |((uuid, tag), intervals): (&super::Source, &Vec<(u64, u64)>)| {
                    let mut text = uuid.clone();
                    if !tag.is_empty() {
                        text.push_str(&format!(":{tag}"));
                    }
                    for (first, last) in intervals {
                        text.push_str(&format!(":{first}-{last}"));
                    }
                    text
                };
                set.0.iter().map(part).collect()
            }
            Gtids::MariaDb(position) => {
                let text = |(domain, server, sequence)| format!("{domain}-{server}-{sequence}");
                position.entries().map(text).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::decision::gtid::Gtids;
    use crate::decision::topology::Flavor;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn mysql(text: &str) -> Gtids {
        Gtids::parse(Flavor::MySql, &text.replace('A', A)).unwrap()
    }

    fn mariadb(text: &str) -> Gtids {
        Gtids::parse(Flavor::MariaDb, text).unwrap()
    }

    #[test]
    fn sets_grow_by_single_transactions() {
        let mut set = mysql("A:1-3");
        for more in ["A:4", "A:6", "A:5", "A:x:1", "A:2"] {
            set.add(&mysql(more));
        }
        assert_eq!(set, mysql("A:1-6:x:1"));
        assert_eq!(set.parts(), [format!("{A}:1-6"), format!("{A}:x:1-1")]);
        let mut position = mariadb("0-1-5");
        position.add(&mariadb("0-2-6"));
        assert_eq!(position, mariadb("0-1-5,0-2-6"));
    }

    #[test]
    fn what_both_have_is_where_they_parted() {
        assert_eq!(mysql("A:1-9").common(&mysql("A:1-5:8-20")), mysql("A:1-5:8-9"));
        assert_eq!(mariadb("0-1-105").common(&mariadb("0-1-104,0-2-107")), mariadb("0-1-104"));
        assert_eq!(mariadb("0-1-100").common(&mariadb("0-2-120")), mariadb("0-1-100"));
        assert_eq!(mariadb("0-1-125").common(&mariadb("0-2-120")), mariadb(""));
    }

    #[test]
    fn lost_transactions_are_told_from_later_ones_of_another_server() {
        let (lost, before) = (mariadb("0-1-106"), mariadb("0-1-104"));
        assert!(lost.names_beyond(&before, &mariadb("0-1-105")));
        assert!(!lost.names_beyond(&before, &mariadb("0-1-104")), "it was not lost");
        assert!(!lost.names_beyond(&before, &mariadb("0-2-105")), "another server's");
        assert!(!lost.names_beyond(&before, &mariadb("0-1-107")));
        assert!(mysql("A:5-6").names_beyond(&mysql("A:1-4"), &mysql("A:6")));
        assert!(!mysql("A:5-6").names_beyond(&mysql("A:1-4"), &mysql("A:7")));
    }
}
