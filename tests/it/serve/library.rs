//! The server as a library.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use futures_lite::future;
use myapp::limits::shutdown;
use myapp::net::address::Address;
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
