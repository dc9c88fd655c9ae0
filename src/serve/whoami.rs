//! Replies of [`Mode::Whoami`](crate::serve::Mode): a JSON line about the connection.

use std::net::SocketAddr;

use serde::Serialize;

use crate::net::proxy_protocol::Announced;
use crate::net::stream::{LocalAddr, Peer, Stream};
use crate::net::tls::SessionInfo;

/// Start of each reply to a datagram.
const UDP_REPLY_START: &[u8] = br#"{"transport":"udp","connection":null,"#;

/// The properties of a connection or of a datagram, in the order of their JSON. Missing ones are
/// null.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Whoami {
    transport: Transport,
    /// Number of the connection, from 1.
    connection: Option<u64>,
    /// Number of the message on its connection, or of the datagram, from 1.
    message: u64,
    peer: Option<String>,
    local: Option<String>,
    announced: Option<Endpoints>,
    tls: Option<SessionInfo>,
    unix: Option<Credentials>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    Tls,
    Udp,
    Unix,
}

/// Endpoints that a proxy announces. A Unix socket without a name is null.
#[derive(Debug, Clone, Serialize)]
struct Endpoints {
    source: Option<String>,
    destination: Option<String>,
}

/// Process of a Unix peer when it connected.
#[derive(Debug, Clone, Copy, Serialize)]
struct Credentials {
    /// Null if the process is not visible from here.
    pid: Option<i32>,
    uid: u32,
    gid: Option<u32>,
}

impl Whoami {
    /// Describes an accepted connection without TLS, after this number of others.
    pub(super) fn of_connection(
        before: u64,
        stream: &Stream,
        peer: &Peer,
        announced: Option<&Announced>,
    ) -> Self {
        let unix = match *peer {
            Peer::V4(_) | Peer::V6(_) => None,
            Peer::Unix { process, user: uid } => Some(Credentials {
                pid: (process > 0).then_some(process),
                uid,
                gid: stream.peer_group(),
            }),
        };
        Self {
            transport: if unix.is_some() {
                Transport::Unix
            } else {
                Transport::Tcp
            },
            connection: Some(before + 1),
            message: 0,
            peer: peer.ip().map(|_| peer.to_string()),
            local: match stream.local_addr() {
                Some(LocalAddr::Ip(address)) => Some(format_ip(address)),
                Some(LocalAddr::Unix(name)) => format_unix(&name),
                None => None,
            },
            announced: announced.map(Endpoints::new),
            tls: None,
            unix,
        }
    }

    /// Adds the properties of a TLS session.
    pub(super) fn set_tls(&mut self, session: SessionInfo) {
        self.transport = Transport::Tls;
        self.tls = Some(session);
    }

    /// Returns the reply to the next message.
    pub(super) fn reply(&mut self) -> Vec<u8> {
        self.message += 1;
        // Strings and numbers always have a JSON form.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

impl Endpoints {
    fn new(announced: &Announced) -> Self {
        match announced {
            Announced::Ip {
                source,
                destination,
            } => Self {
                source: Some(format_ip(*source)),
                destination: Some(format_ip(*destination)),
            },
            Announced::Unix {
                source,
                destination,
            } => Self {
                source: format_unix(source),
                destination: format_unix(destination),
            },
        }
    }
}

/// Returns the reply to a datagram, after this number of others.
pub(super) fn datagram_reply(before: u64, peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut whoami = Whoami {
        transport: Transport::Udp,
        connection: None,
        message: before,
        peer: Some(format_ip(peer)),
        local: Some(format_ip(local)),
        announced: None,
        tls: None,
        unix: None,
    };
    whoami.reply()
}

/// Returns whether a datagram is the reply of such a server, which would reply to the reply.
pub(super) fn is_datagram_reply(message: &[u8]) -> bool {
    message.starts_with(UDP_REPLY_START)
}

/// Formats an address as in the log.
fn format_ip(address: SocketAddr) -> String {
    Peer::from(address).to_string()
}

/// Formats the path of a Unix socket, or its abstract name, which starts with a NUL.
fn format_unix(name: &[u8]) -> Option<String> {
    let (mark, name) = match name {
        [] => return None,
        [0, name @ ..] => ("@", name),
        path => ("", path),
    };
    Some(format!("unix:{mark}{}", String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_names_are_formatted_as_addresses() {
        assert_eq!(format_unix(b"/run/x").as_deref(), Some("unix:/run/x"));
        assert_eq!(format_unix(b"\0name").as_deref(), Some("unix:@name"));
        assert_eq!(format_unix(b"a\xff\n").as_deref(), Some("unix:a\u{fffd}\n"));
        assert_eq!(format_unix(b""), None);
    }

    #[test]
    fn reply_to_a_datagram_is_recognized() {
        let address = "127.0.0.1:7".parse().unwrap();
        let reply = datagram_reply(4, address, address);
        let expected = concat!(
            r#"{"transport":"udp","connection":null,"message":5,"peer":"127.0.0.1:7","#,
            r#""local":"127.0.0.1:7","announced":null,"tls":null,"unix":null}"#,
            "\n"
        );
        assert_eq!(String::from_utf8_lossy(&reply), expected);
        assert!(is_datagram_reply(&reply));
        assert!(!is_datagram_reply(b"{}"));
    }
}
