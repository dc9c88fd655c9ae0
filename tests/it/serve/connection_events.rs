//! Events of connections, for the program that runs a server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use futures_lite::AsyncWriteExt as _;
use myapp::limits::shutdown;
use myapp::net::address::{Address, Endpoint};
use myapp::net::tls::{ServerIdentity, TlsServerConfig};
use myapp::serve::{Config, ConnectionEvent, HandlerStream, Server};

/// Sends bytes over a connection, and returns its local address and the reply.
fn exchange(address: SocketAddr, bytes: &[u8]) -> (SocketAddr, Vec<u8>) {
    let mut client = TcpStream::connect(address).unwrap();
    let local = client.local_addr().unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).unwrap();
    (local, reply)
}

/// Returns a server that sends its events to the receiver, and its address.
fn observed(address: Address, config: Config) -> (Server, SocketAddr, Receiver<ConnectionEvent>) {
    let server = smol::block_on(Server::bind([address], config)).unwrap();
    let address = server.local_addrs()[0].socket_addr().unwrap();
    let (sender, events) = channel();
    let server = server.with_observer(move |event| sender.send(event).unwrap());
    (server, address, events)
}

#[test]
fn connections_are_observed_with_their_counts() {
    let (server, address, events) = observed(Address::loopback(0), Config::default());
    let (trigger, stop) = shutdown::channel();
    let running = thread::spawn(move || {
        smol::block_on(server.run(async move { stop.wait().await }));
    });
    let (local, reply) = exchange(address, b"one\ntwo\n");
    assert_eq!(reply, b"one\ntwo\n");
    trigger.trigger();
    running.join().unwrap();
    let events: Vec<_> = events.iter().collect();
    let peer = Some(local);
    let [
        ConnectionEvent::Opened { peer: opened },
        ConnectionEvent::Closed {
            peer: closed,
            messages,
            received,
            sent,
            reason,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*opened, *closed), (peer, peer));
    assert_eq!((*messages, *received, *sent), (2, 8, 8));
    assert_eq!(reason, "end of input");
}

#[test]
fn handled_connection_is_observed_with_its_bytes() {
    let (server, address, events) = observed(Address::loopback(0), Config::default());
    let (trigger, stop) = shutdown::channel();
    let handler = async |mut stream: HandlerStream| stream.write_all(b"hello").await.unwrap();
    let running = thread::spawn(move || {
        smol::block_on(server.run_with(handler, async move { stop.wait().await }));
    });
    let mut reply = String::new();
    let mut client = TcpStream::connect(address).unwrap();
    client.read_to_string(&mut reply).unwrap();
    trigger.trigger();
    running.join().unwrap();
    let closed = events.iter().last();
    let Some(ConnectionEvent::Closed {
        messages,
        received,
        sent,
        reason,
        ..
    }) = closed
    else {
        panic!("{closed:?}")
    };
    assert_eq!((messages, received, sent), (0, 0, 5));
    assert_eq!(reason, "handler");
}

#[test]
fn failed_handshake_is_observed() {
    let config = Config {
        tls: Some(TlsServerConfig {
            identity: ServerIdentity::SelfSigned,
            client_ca: None,
        }),
        ..Config::default()
    };
    let (server, address, events) = observed(Address::Tls(Endpoint::loopback(0)), config);
    let (trigger, stop) = shutdown::channel();
    let running = thread::spawn(move || {
        smol::block_on(server.run(async move { stop.wait().await }));
    });
    exchange(address, b"plain text\n");
    trigger.trigger();
    running.join().unwrap();
    let closed = events.iter().last();
    let Some(ConnectionEvent::Closed { reason, .. }) = closed else {
        panic!("{closed:?}")
    };
    assert_eq!(reason, "client does not speak TLS");
}
