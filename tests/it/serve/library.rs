//! The server as a library.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use futures_lite::future;
use myapp::error_chain::ErrorChain;
use myapp::limits::shutdown;
use myapp::net::address::{Address, Endpoint};
use myapp::serve;

use crate::harness::serve::{ask, ends};
use crate::harness::tcp_queues::unread_to;
use crate::harness::until;

#[track_caller]
fn bind(config: serve::Config) -> serve::Server {
    let addresses = [Address::loopback(0)];
    smol::block_on(serve::Server::bind(&addresses, config)).expect("listen")
}

/// Runs a server while `client` runs, then stops it.
#[track_caller]
fn beside<T>(config: serve::Config, client: impl FnOnce(SocketAddr) -> T) -> (T, serve::Summary) {
    let server = bind(config);
    let address = server.local_addrs()[0].socket_addr().unwrap();
    let (trigger, stop) = shutdown::channel();
    thread::scope(|scope| {
        let running = scope.spawn(move || smol::block_on(server.run(stop.wait())));
        let result = client(address);
        trigger.trigger();
        (result, running.join().unwrap())
    })
}

#[test]
fn longest_line_is_refused_at_the_buffer_limit() {
    let config = serve::Config {
        max_buffered_bytes: 100_000,
        ..serve::Config::default()
    };
    let (answer, summary) = beside(config, |address| {
        let connect = || TcpStream::connect(address).unwrap();
        let mut long = connect();
        let mut short = connect();
        let mut last = connect();
        long.write_all(&[b'l'; 60_000]).unwrap();
        short.write_all(&[b's'; 30_000]).unwrap();
        // Otherwise the last line may be read first.
        until(|| unread_to(address.port()) == 0);
        last.write_all(&[b'x'; 20_000]).unwrap();
        let mut answer = String::new();
        long.read_to_string(&mut answer).unwrap();
        drop(long);
        for (mut client, length) in [(short, 30_000), (last, 20_000)] {
            client.write_all(b"\n").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), length + 1);
        }
        answer
    });
    assert_eq!(answer, "error: line longer than 60000 bytes\n");
    assert_eq!(
        (
            summary.connections,
            summary.line_too_long,
            summary.aborted_on_shutdown
        ),
        (3, 1, 0)
    );
}

#[test]
fn dropped_run_aborts_all_connections() {
    let server = bind(serve::Config::default());
    let address = server.local_addrs()[0].socket_addr().unwrap();
    let stats = server.stats();
    let (trigger, stop) = shutdown::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let run = async {
                let _ = server.run(std::future::pending()).await;
            };
            smol::block_on(future::or(run, stop.wait()));
        });
        let client = TcpStream::connect(address).unwrap();
        ask(&client, b"hello\n");
        trigger.trigger();
        ends(&client);
    });
    let summary = stats.summary();
    assert_eq!(
        (
            summary.connections,
            summary.active,
            summary.aborted_on_shutdown
        ),
        (1, 0, 1)
    );
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn faults_change_while_connections_are_open() {
    let config = serve::Config {
        prefix: b"> ".into(),
        fault_injection: Some(serve::FaultInjection::default()),
        ..serve::Config::default()
    };
    let addresses = [Address::loopback(0), Address::Udp(Endpoint::loopback(0))];
    let server = smol::block_on(serve::Server::bind(&addresses, config)).expect("listen");
    let bound: Vec<_> = server
        .local_addrs()
        .iter()
        .filter_map(Address::socket_addr)
        .collect();
    let faults = server.faults().expect("a handle").clone();
    let stats = server.stats();
    let (trigger, stop) = shutdown::channel();
    let summary = thread::scope(|scope| {
        let running = scope.spawn(move || smol::block_on(server.run(stop.wait())));
        let client = TcpStream::connect(bound[0]).unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.connect(bound[1]).unwrap();
        datagrams
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let exchange = |message: &[u8]| {
            datagrams.send(message).unwrap();
            let mut reply = [0; 20];
            let length = datagrams.recv(&mut reply).unwrap();
            reply[..length].to_vec()
        };
        let replies = |message: &[u8]| {
            (&client).write_all(message).unwrap();
            let mut reply = vec![0; message.len() + 2];
            (&client).read_exact(&mut reply).unwrap();
            reply
        };
        assert_eq!(replies(b"one\n"), b"> one\n");
        assert_eq!(exchange(b"one"), b"> one");

        let dropping = serve::FaultInjection {
            drop_rate: 1.0,
            ..serve::FaultInjection::default()
        };
        assert_eq!(
            faults.set(dropping.clone()).unwrap(),
            serve::FaultInjection::default()
        );
        (&client).write_all(b"lost\n").unwrap();
        datagrams.send(b"lost").unwrap();
        until(|| stats.summary().fault_dropped == 2);
        assert_eq!(faults.get(), dropping);

        faults.set(serve::FaultInjection::default()).unwrap();
        assert_eq!(replies(b"two\n"), b"> two\n");
        assert_eq!(exchange(b"two"), b"> two");
        drop(client);
        trigger.trigger();
        running.join().unwrap()
    });
    assert_eq!((summary.fault_changes, summary.fault_dropped), (2, 2));
}

#[test]
fn invalid_faults_prevent_the_start() {
    let config = serve::Config {
        fault_injection: Some(serve::FaultInjection {
            corrupt_rate: f64::NAN,
            ..serve::FaultInjection::default()
        }),
        ..serve::Config::default()
    };
    let bound = smol::block_on(serve::Server::bind([Address::loopback(0)], config));
    let error = bound.unwrap_err();
    assert_eq!(
        ErrorChain(&error).to_string(),
        "fault injection: corrupt_rate: not a share from 0 to 1"
    );
}
