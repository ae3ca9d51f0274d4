//! What a client is told when it cannot be connected: a MySQL error in place of the greeting.

use std::fmt;

/// Why a client was turned away before any server greeted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The cluster's limit of connections is reached.
    TooManyConnections,
    /// No route opened in time.
    NoRoute,
    /// There was a route, but its server could not be reached in time.
    Unreachable,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 3] =
        [Refusal::TooManyConnections, Refusal::NoRoute, Refusal::Unreachable];

    /// MySQL's own number: 1040 is `ER_CON_COUNT_ERROR`, which pools back off from; 3168 is
    /// `ER_SERVER_ISNT_AVAILABLE`.
    pub fn code(self) -> u16 {
        match self {
            Refusal::TooManyConnections => 1040,
            Refusal::NoRoute | Refusal::Unreachable => 3168,
        }
    }

    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::TooManyConnections => "too_many_connections",
            Refusal::NoRoute => "no_route",
            Refusal::Unreachable => "unreachable",
        }
    }

    /// The whole first packet of the connection.
    ///
    /// It carries no SQLSTATE: before the greeting no capabilities are agreed, so servers leave it
    /// out and clients would show it as part of the text.
    pub fn packet(self) -> Vec<u8> {
        let text = self.to_string();
        let length = u8::try_from(3 + text.len()).expect("the texts are shorter than 252 bytes");
        let mut packet = vec![length, 0, 0, 0, 0xff];
        packet.extend_from_slice(&self.code().to_le_bytes());
        packet.extend_from_slice(text.as_bytes());
        packet
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TooManyConnections => "Too many connections",
            Refusal::NoRoute => "Regent has no server to send this connection to at present",
            Refusal::Unreachable => "Regent could not reach the server in time",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn packets_are_what_a_server_sends_before_its_greeting() {
        let mut expected = vec![23, 0, 0, 0, 0xff, 0x10, 0x04];
        expected.extend_from_slice(b"Too many connections");
        assert_eq!(Refusal::TooManyConnections.packet(), expected);
        for refusal in Refusal::ALL {
            let packet = refusal.packet();
            assert_eq!(usize::from(packet[0]), packet.len() - 4);
        }
    }
}
