//! Servers whose connections a handler of the caller serves.

use std::future::pending;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, future};
use myapp::echo::{self, Message, Target};
use myapp::limits::shutdown::{self, Trigger};
use myapp::net::address::{Address, Endpoint};
use myapp::net::tls::{ServerIdentity, TlsConfig, TlsServerConfig, Trust};
use myapp::serve::{Config, HandlerStream, Server, Summary};

use crate::harness::until;

/// Runs a server with `handler` while `client` runs with its address and the trigger that stops it.
#[track_caller]
fn scripted<T>(
    config: Config,
    handler: impl AsyncFn(HandlerStream) + Send + Sync + 'static,
    client: impl FnOnce(SocketAddr, Trigger) -> T,
) -> (T, Summary) {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = smol::block_on(Server::bind([local], config)).unwrap();
    let address = server.local_addrs()[0].socket_addr().unwrap();
    let (trigger, stop) = shutdown::channel();
    thread::scope(|scope| {
        let running = scope.spawn(move || {
            smol::block_on(server.run_with(handler, async move { stop.wait().await }))
        });
        let result = client(address, trigger);
        (result, running.join().unwrap())
    })
}

fn read_all(address: SocketAddr) -> std::io::Result<String> {
    let mut reply = String::new();
    TcpStream::connect(address)?.read_to_string(&mut reply)?;
    Ok(reply)
}

#[test]
fn handler_serves_each_connection() {
    let handler = async |mut stream: HandlerStream| {
        assert!(stream.peer_addr().is_some());
        let text = format!("connection {}\n", stream.number());
        stream.write_all(text.as_bytes()).await.unwrap();
    };
    let (replies, summary) = scripted(Config::default(), handler, |address, _stop| {
        [(); 2].map(|()| read_all(address).unwrap())
    });
    assert_eq!(replies, ["connection 0\n", "connection 1\n"]);
    assert_eq!((summary.connections, summary.sent), (2, 26));
}

#[test]
fn handler_can_reset_a_connection() {
    let handler = async |stream: HandlerStream| stream.reset().unwrap();
    let (reply, _) = scripted(Config::default(), handler, |address, _stop| {
        read_all(address)
    });
    assert_eq!(reply.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn idle_timeout_ends_a_handler() {
    let config = Config {
        idle_timeout: Some(Duration::from_millis(50)),
        ..Config::default()
    };
    let handler = async |_stream: HandlerStream| pending().await;
    let (reply, _) = scripted(config, handler, |address, _stop| read_all(address));
    assert_eq!(reply.unwrap(), "");
}

#[test]
fn handler_may_finish_while_the_server_drains() {
    let handler = async |mut stream: HandlerStream| {
        stream.write_all(b"hello\n").await.unwrap();
        stream.draining().await;
        stream.write_all(b"goodbye\n").await.unwrap();
    };
    let (reply, summary) = scripted(Config::default(), handler, |address, stop| {
        let mut client = TcpStream::connect(address).unwrap();
        let mut reply = [0; 6];
        client.read_exact(&mut reply).unwrap();
        stop.trigger();
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        rest
    });
    assert_eq!(reply, "goodbye\n");
    assert_eq!(summary.aborted_on_shutdown, 0);
}

#[test]
fn endless_handler_is_dropped_after_the_drain_timeout() {
    let config = Config {
        drain_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let handler = async |mut stream: HandlerStream| {
        let mut buffer = [0; 100];
        while stream.read(&mut buffer).await.is_ok() {
            future::yield_now().await;
        }
    };
    scripted(config, handler, |address, stop| {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"one\n").unwrap();
        until(|| crate::harness::tcp_queues::unread_to(address.port()) == 0);
        stop.trigger();
        // Ends with a reset, as the handler has not closed it.
        let _ = client.read_to_end(&mut Vec::new());
    });
}

#[test]
fn handler_serves_over_tls() {
    let config = Config {
        tls: Some(TlsServerConfig {
            identity: ServerIdentity::SelfSigned,
            client_ca: None,
        }),
        ..Config::default()
    };
    let local = Address::Tls(Endpoint::loopback(0));
    let server = smol::block_on(Server::bind([local], config)).unwrap();
    let message = Message::new(b"ping".to_vec()).unwrap();
    let target = Target {
        address: server.local_addrs()[0].clone(),
        tls: TlsConfig {
            trust: Trust::PinnedSha256(server.fingerprint().unwrap()),
            identity: None,
        },
        ..Target::default()
    };
    let client = echo::Config {
        target,
        ..echo::Config::default()
    };
    let liar = async |mut stream: HandlerStream| {
        let mut message = [0; 5];
        stream.read_exact(&mut message).await.unwrap();
        message.make_ascii_uppercase();
        stream.write_all(&message).await.unwrap();
        stream.close().await.unwrap();
    };
    let (trigger, stop) = shutdown::channel();
    let reply = thread::scope(|scope| {
        scope
            .spawn(move || smol::block_on(server.run_with(liar, async move { stop.wait().await })));
        let reply = smol::block_on(echo::send(&message, &client));
        trigger.trigger();
        reply
    });
    reply.outcome.unwrap();
    assert_eq!(reply.bytes, b"PING\n");
}
