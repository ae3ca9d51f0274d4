//! What the router drops.

use super::subnet;
use std::net::Ipv4Addr;

/// Packets that are dropped: those from one place to another, in this direction only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where they come from.
    pub from: Place,
    /// Where they go.
    pub to: Place,
}

/// Some hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All of them.
    Anywhere,
    /// Those of a data center.
    DataCenter(&'static str),
    /// Those of all other data centers.
    Outside(&'static str),
    /// One host.
    Host(&'static str),
}

impl Cut {
    /// In this direction only.
    pub fn one_way(from: Place, to: Place) -> [Cut; 1] {
        [Cut { from, to }]
    }

    /// In both directions.
    pub fn between(one: Place, other: Place) -> [Cut; 2] {
        [Cut { from: one, to: other }, Cut { from: other, to: one }]
    }

    /// A data center from all others.
    pub fn whole(data_center: &'static str) -> [Cut; 2] {
        Cut::between(Place::DataCenter(data_center), Place::Outside(data_center))
    }

    /// A host from all others.
    pub fn alone(host: &'static str) -> [Cut; 2] {
        Cut::between(Place::Host(host), Place::Anywhere)
    }
}

/// All rules of the router, as `iptables-restore` reads them; the desk always gets through.
pub(super) fn rules(cuts: &[Cut], address: impl Fn(&str) -> Option<Ipv4Addr>) -> String {
    let mut text = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n".to_owned();
    let desk = super::DESK;
    text += &format!("-A FORWARD -s {desk} -j ACCEPT\n-A FORWARD -d {desk} -j ACCEPT\n");
    for cut in cuts {
        let from = matching(cut.from, "-s", &address);
        let to = matching(cut.to, "-d", &address);
        text += &format!("-A FORWARD {from}{to}-j DROP\n");
    }
    text + "COMMIT\n"
}

fn matching(place: Place, option: &str, address: &impl Fn(&str) -> Option<Ipv4Addr>) -> String {
    match place {
        Place::Anywhere => String::new(),
        Place::DataCenter(name) => format!("{option} {} ", subnet(name)),
        Place::Outside(name) => format!("! {option} {} ", subnet(name)),
        // A host that is not there matches nothing, rather than everything.
        Place::Host(name) => {
            format!("{option} {} ", address(name).unwrap_or(Ipv4Addr::UNSPECIFIED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cut_is_a_rule_behind_the_desk() {
        let address = |name: &str| (name == "db1").then_some(Ipv4Addr::new(10, 77, 1, 11));
        let mut cuts = Cut::whole("london").to_vec();
        cuts.extend(Cut::one_way(Place::Host("db1"), Place::Anywhere));
        cuts.extend(Cut::one_way(Place::Host("db9"), Place::Anywhere));
        let rules = rules(&cuts, address);
        let rules: Vec<&str> = rules.lines().skip(4).collect();
        assert_eq!(
            rules,
            [
                "-A FORWARD -s 10.77.0.10 -j ACCEPT",
                "-A FORWARD -d 10.77.0.10 -j ACCEPT",
                "-A FORWARD -s 10.77.2.0/24 ! -d 10.77.2.0/24 -j DROP",
                "-A FORWARD ! -s 10.77.2.0/24 -d 10.77.2.0/24 -j DROP",
                "-A FORWARD -s 10.77.1.11 -j DROP",
                "-A FORWARD -s 0.0.0.0 -j DROP",
                "COMMIT",
            ]
        );
    }
}
