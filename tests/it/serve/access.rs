//! Access control by address.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::harness::serve::ask;
use crate::harness::{Server, myapp};

/// Connects from a local address.
#[track_caller]
pub(super) fn from(ip: [u8; 4], server: &Server) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::from(ip), 0))).unwrap();
    let port = server.address().port();
    connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// Fails unless the connection is closed without a reply.
#[track_caller]
pub(super) fn is_closed(mut client: TcpStream) {
    match client.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn max_per_ip_applies_to_each_address() {
    let server = Server::start(&["--max-per-ip", "2", "--threads", "2"]);
    let first = from([127, 0, 0, 1], &server);
    let second = from([127, 0, 0, 1], &server);
    ask(&first, b"in\n");
    ask(&second, b"in\n");
    let open = server.descriptors();
    is_closed(from([127, 0, 0, 1], &server));
    let other = from([127, 0, 0, 2], &server);
    assert_eq!(ask(&other, b"served\n"), b"served\n");
    drop((first, other));
    server.until_descriptors(open - 1);
    assert_eq!(ask(&from([127, 0, 0, 1], &server), b"again\n"), b"again\n");
    assert_eq!(ask(&second, b"goes on\n"), b"goes on\n");
    server
        .stop()
        .says("summary connections=4")
        .says("refused_max_per_ip=1")
        .says("refused peer=127.0.0.1:");
}

#[test]
fn denied_or_not_allowed_address_is_refused() {
    let denied = "--deny=127.0.0.2/31";
    let server = Server::start(&["--allow=127.0.0.0/29", "--allow=127.0.0.9", denied]);
    for served in [1, 4, 9] {
        assert_eq!(
            ask(&from([127, 0, 0, served], &server), b"hello\n"),
            b"hello\n"
        );
    }
    for refused in [2, 3, 8] {
        is_closed(from([127, 0, 0, refused], &server));
    }
    server
        .stop()
        .says("summary connections=3")
        .says("refused_acl=3")
        .says("refused_max_per_ip=0");
}

#[test]
fn dual_stack_socket_matches_ipv4_networks() {
    let server = Server::of(myapp(["serve", ":0", "--deny", "127.0.0.2"]), 1);
    is_closed(from([127, 0, 0, 2], &server));
    assert_eq!(ask(&from([127, 0, 0, 1], &server), b"hello\n"), b"hello\n");
}

#[test]
fn mapped_ipv4_network_applies_to_ipv4_clients() {
    for network in [
        "::ffff:127.0.0.2",
        "::FFFF:7f00:2/127",
        "::ffff:127.0.0.2/128",
    ] {
        for address in ["127.0.0.1:0", ":0"] {
            let server = Server::of(myapp(["serve", address, "--deny", network]), 1);
            is_closed(from([127, 0, 0, 2], &server));
            assert_eq!(ask(&from([127, 0, 0, 1], &server), b"hello\n"), b"hello\n");
            server.stop().says("refused_acl=1");
        }
    }
}

#[test]
fn invalid_network_is_a_usage_error() {
    for text in [
        "10.0.0.0/33",
        "10.0.0/8",
        "::1/129",
        "localhost",
        "10.0.0.0/",
    ] {
        let ran = myapp(["serve", "--allow", text]).run().code(2).prints("");
        ran.says("not a network such as 10.0.0.0/8");
    }
    myapp(["serve", "--max-per-ip", "0"])
        .run()
        .code(2)
        .prints("");
}
