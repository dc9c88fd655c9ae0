//! UDP.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::clients::talks;
use super::metrics::until;
use super::{MIB, random_bytes};
use crate::harness::serve::ask;
use crate::harness::{Server, myapp, schema};

/// Time limit for expected replies.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts a server with these arguments on `udp://` and `address`.
#[track_caller]
pub(super) fn serve(arguments: &[&str], address: &str) -> Server {
    let address = format!("udp://{address}");
    Server::of(myapp([&["serve"], arguments, &[&address]].concat()), 1)
}

/// Returns a socket connected to `server`.
#[track_caller]
pub(super) fn client(server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

#[track_caller]
fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let length = client.recv(&mut buffer).expect("receive an answer");
    buffer.truncate(length);
    buffer
}

/// Sends a datagram and returns the next reply.
#[track_caller]
pub(super) fn exchange(client: &UdpSocket, message: &[u8]) -> Vec<u8> {
    client.send(message).expect("send a datagram");
    receive(client)
}

/// Returns all replies received so far.
pub(super) fn come(client: &UdpSocket) -> Vec<Vec<u8>> {
    client.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 16];
    std::iter::from_fn(|| {
        client
            .recv(&mut buffer)
            .ok()
            .map(|length| buffer[..length].to_vec())
    })
    .collect()
}

#[test]
fn datagrams_of_every_length_are_echoed() {
    for (mode, address) in [
        ("line", "127.0.0.1:0"),
        ("chunk", "127.0.0.1:0"),
        ("line", "[::1]:0"),
    ] {
        let server = serve(&["--mode", mode, "-q"], address);
        let client = client(server.address());
        for length in [0, 1, 1472, 8192, 65_507] {
            let message = random_bytes(length);
            assert!(
                exchange(&client, &message) == message,
                "{length} bytes in {mode} mode differ"
            );
        }
    }
    let server = serve(&["--udp-max", "65527"], "[::1]:0");
    let longest = random_bytes(65_527);
    assert!(
        exchange(&client(server.address()), &longest) == longest,
        "the longest of IPv6 differs"
    );
}

#[test]
fn datagram_is_one_message_with_one_prefix() {
    let server = serve(&["--prefix", "> "], "127.0.0.1:0");
    let client = client(server.address());
    assert_eq!(
        exchange(&client, b"two\nlines, no end"),
        b"> two\nlines, no end"
    );
    assert_eq!(exchange(&client, b""), b"> ");
    server
        .stop()
        .says("messages=2")
        .says("datagrams_received=2");
}

#[test]
fn datagram_with_the_own_prefix_gets_no_reply() {
    for faults in [&[] as &[_], &["--delay", "1ms"]] {
        let server = serve(&[&["--prefix", "> "], faults].concat(), "127.0.0.1:0");
        let client = client(server.address());
        client.send(b"> looks like a reply").unwrap();
        assert_eq!(exchange(&client, b">no"), b"> >no");
        let ran = server.stop().says("datagrams_received=1");
        ran.says("reason=\"loops_suppressed\"");
        assert_eq!(come(&client), [b""; 0]);
    }
    // Without replies there is no loop.
    let server = serve(&["--mode", "discard"], "127.0.0.1:0");
    client(server.address()).send(b"> ").unwrap();
    server
        .stop()
        .says("datagrams_received=1 datagrams_unanswered=0");
}

#[test]
fn discard_mode_sends_no_datagrams() {
    let server = serve(&["--mode", "discard"], "127.0.0.1:0");
    let client = client(server.address());
    client.send(b"gone").unwrap();
    server
        .stop()
        .says("messages=1")
        .says("received=4")
        .says("sent=0");
    assert_eq!(come(&client), [b""; 0]);
}

#[test]
fn oversized_datagram_is_counted_and_dropped() {
    let server = serve(&["--udp-max", "100"], "127.0.0.1:0");
    let client = client(server.address());
    client.send(&random_bytes(101)).unwrap();
    assert_eq!(exchange(&client, &random_bytes(100)), random_bytes(100));
    let ran = server
        .stop()
        .says("messages=1")
        .says("datagrams_received=1 datagrams_unanswered=1");
    ran.says("reason=\"too_long\"");
    assert_eq!(come(&client), [b""; 0]);
}

#[test]
fn reply_uses_the_destination_address() {
    for (every, asked) in [
        ("0.0.0.0:0", "127.0.0.2"),
        (":0", "127.0.0.1"),
        (":0", "127.0.0.2"),
        ("[::]:0", "127.0.0.3"),
        ("[::]:0", "::1"),
    ] {
        let server = serve(&[], every);
        let client = client(SocketAddr::new(
            asked.parse().unwrap(),
            server.address().port(),
        ));
        assert_eq!(
            exchange(&client, asked.as_bytes()),
            asked.as_bytes(),
            "{asked} at {every}"
        );
    }
}

#[test]
#[ignore = "peer: unshare, ip, nsenter, socat"]
fn reply_uses_the_ipv6_destination_address() {
    // This machine may have a single address; a network namespace gets the addresses it needs.
    let mut unshare = Command::new("unshare");
    let network = "ip link set lo up && ip addr add fd00::1/128 dev lo &&
                   ip addr add fd00::2/128 dev lo && exec \"$0\" \"$@\"";
    unshare.args(["--user", "--map-root-user", "--net", "sh", "-c", network]);
    let server = Server::of(myapp(["serve", "-q", "udp://:0"]).through(unshare), 1);
    let id = server.id();
    let port = server.address().port();
    let [user, net] = ["user", "net"].map(|kind| format!("--{kind}=/proc/{id}/ns/{kind}"));
    for (asked, asking) in [
        ("fd00::1", "fd00::2"),
        ("fd00::2", "fd00::1"),
        ("fd00::1", "::1"),
    ] {
        // socat accepts replies only from its destination.
        let to = format!("UDP6:[{asked}]:{port},bind=[{asking}]");
        let inside = [&user, &net, "--preserve-credentials", "socat", "-", &to];
        talks("nsenter", &inside, b"who are you?");
    }
}

#[test]
fn udp_send_error_is_counted() {
    let server = serve(&["--prefix", "> "], "127.0.0.1:0");
    let client = client(server.address());
    // With the prefix it exceeds the maximum length.
    client.send(&random_bytes(65_507)).unwrap();
    for _ in 0..10 {
        // The socket of the peer is closed.
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        gone.send_to(b"gone", server.address()).unwrap();
    }
    assert_eq!(exchange(&client, b"still here"), b"> still here");
    server
        .stop()
        .says("datagrams_received=12 datagrams_unanswered=1")
        .says("send failed");
}

#[test]
fn denied_udp_peer_gets_no_reply() {
    let server = serve(&["--deny", "127.0.0.2"], ":0");
    let to = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let denied = UdpSocket::bind("127.0.0.2:0").unwrap();
    denied.send_to(b"let me in", to).unwrap();
    assert_eq!(exchange(&client(to), b"hello"), b"hello");
    server
        .stop()
        .says("datagrams_received=1 datagrams_unanswered=1")
        .says("reason=\"acl\"");
    assert_eq!(come(&denied), [b""; 0]);
}

#[test]
fn udp_clients_keep_order_across_threads() {
    let server = serve(&["--threads", "3", "-q"], "127.0.0.1:0");
    let clients: Vec<_> = (0..50).map(|_| client(server.address())).collect();
    for round in 0..5 {
        // No more at once than fit into the socket buffers.
        let numbers = round * 4..(round + 1) * 4_u8;
        for client in &clients {
            numbers
                .clone()
                .for_each(|number| assert_eq!(client.send(&[number]).unwrap(), 1));
        }
        for client in &clients {
            let answers: Vec<_> = numbers.clone().map(|_| receive(client)[0]).collect();
            assert!(answers.iter().copied().eq(numbers.clone()), "{answers:?}");
        }
    }
}

#[test]
fn shutdown_replies_to_queued_datagrams() {
    let server = serve(&[], "127.0.0.1:0");
    let client = client(server.address());
    assert_eq!(exchange(&client, b"it runs"), b"it runs");
    server.signal(Signal::STOP);
    let messages: Vec<_> = (0..100_u8).map(|number| vec![number; 10]).collect();
    for message in &messages {
        client.send(message).unwrap();
    }
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    server
        .wait()
        .code(0)
        .says("datagrams_received=101 datagrams_unanswered=0");
    assert_eq!(come(&client), messages);
    let late = client
        .set_nonblocking(false)
        .and_then(|()| client.send(b"late"));
    let refused = late.and_then(|_| client.recv(&mut [0]));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn shutdown_replies_while_the_delay_queue_is_full() {
    const LEN: usize = 60_000;
    // The queue takes 4 MiB; the last datagrams stay in the kernel.
    const QUEUED: usize = (4 << 20) / LEN + 1;
    const ALL: usize = QUEUED + 2;
    let mut server = Server::of(
        // The last replies take two delays. The jitter spreads them: a burst would overflow the
        // receive buffer of a busy client.
        myapp([
            "serve",
            "-q",
            "--delay=4s",
            "--jitter=2s",
            "--drain=60s",
            "--metrics=0",
            "udp://0",
        ]),
        1,
    );
    let line = server.line();
    let metrics = line.split("http://").nth(1).unwrap();
    let metrics = metrics.split('/').next().unwrap().parse().unwrap();
    let client = client(server.address());
    for number in 1..=QUEUED {
        client.send(&random_bytes(LEN)).unwrap();
        until(
            metrics,
            &[&format!("myapp_datagrams_received_total {number}")],
        );
    }
    for _ in QUEUED..ALL {
        client.send(&random_bytes(LEN)).unwrap();
    }
    server.signal(Signal::TERM);
    for number in 0..ALL {
        assert_eq!(receive(&client).len(), LEN, "reply {number}");
    }
    server.wait().code(0);
}

#[test]
fn connections_and_datagrams_are_served_together() {
    let server = Server::of(myapp(["serve", "0", "udp://0"]), 2);
    let [tcp, udp] = server.addresses() else {
        panic!("{:?}", server.addresses())
    };
    let stream = server.connect();
    assert_eq!(stream.peer_addr().unwrap(), *tcp);
    let client = client(*udp);
    for _ in 0..100 {
        assert_eq!(ask(&stream, b"a line\n"), b"a line\n");
        assert_eq!(exchange(&client, b"a datagram"), b"a datagram");
    }
    drop(stream);
    server
        .stop()
        .says("summary connections=1 messages=200")
        .says("datagrams_received=100");
}

#[test]
fn udp_flood_does_not_starve_or_block_shutdown() {
    for faults in [
        &["--threads", "1"][..],
        &["--threads", "1", "--jitter", "1ms"],
    ] {
        let arguments = [&["serve", "-q"], faults, &["0", "udp://0"]].concat();
        let server = Server::of(myapp(arguments), 2);
        let stream = server.connect();
        let flooder = client(server.addresses()[1]);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // Unread replies are dropped, and sends fail once the server has exited.
                let begun = Instant::now();
                while !over.load(Relaxed) && begun.elapsed() < LIMIT {
                    let _ = flooder.send(b"one of too many");
                }
            });
            (0..20).for_each(|_| assert_eq!(ask(&stream, b"a line\n"), b"a line\n"));
            assert_eq!(receive(&flooder), b"one of too many");
            drop(stream);
            let start = Instant::now();
            server.stop();
            over.store(true, Relaxed);
            assert!(
                start.elapsed() < Duration::from_secs(6),
                "{:?}",
                start.elapsed()
            );
        });
    }
}

#[test]
fn udp_address_in_use_is_refused() {
    let server = serve(&["--threads", "2"], "127.0.0.1:0");
    let address = format!("udp://{}", server.address());
    let ran = myapp(["serve", &address]).run().code(4).prints("");
    ran.says(&format!(
        "myapp: listen on {address}: Address already in use"
    ));
}

#[test]
fn mapped_ipv4_peer_is_logged_as_ipv4() {
    let server = serve(&[], ":0");
    let client = client(SocketAddr::from(([127, 0, 0, 1], server.address().port())));
    exchange(&client, b"hello");
    server.stop().says(&format!(
        "received peer={} bytes=5",
        client.local_addr().unwrap()
    ));
}

#[test]
fn datagram_text_is_escaped_in_the_log() {
    let server = serve(&[], "127.0.0.1:0");
    exchange(&client(server.address()), b"\x1b[2J\n\xff");
    server.stop().says(r"bytes=6 text=\x1b[2J\n\xff");
}

#[test]
fn oversized_datagram_limit_is_a_usage_error() {
    for size in ["0", "65528", "1M"] {
        myapp(["serve", "udp://0", "--udp-max", size])
            .run()
            .code(2)
            .prints("");
    }
    let ran = myapp(["serve", "0", "--udp-max", "100"])
        .run()
        .code(2)
        .prints("");
    ran.says("--udp-max has no effect without a udp:// address");
}

#[test]
fn datagrams_have_their_own_metrics() {
    let arguments = [
        "serve",
        "--json",
        "--udp-max",
        "10",
        "--metrics",
        "0",
        "udp://0",
    ];
    let mut running = myapp(arguments).start();
    let mut address = |scheme: &str| {
        let event = schema::json("serve", &running.line());
        let address = event["address"]
            .as_str()
            .and_then(|url| url.strip_prefix(scheme));
        address
            .unwrap()
            .trim_end_matches("/metrics")
            .parse()
            .unwrap()
    };
    let client = client(address("udp://"));
    let metrics = address("http://");
    client.send(&random_bytes(11)).unwrap();
    exchange(&client, b"one");
    exchange(&client, b"four");
    until(
        metrics,
        &[
            "myapp_connections_total 0",
            "myapp_messages_total 2",
            "myapp_received_bytes_total 7",
            "myapp_sent_bytes_total 7",
            "myapp_datagrams_received_total 2",
            "myapp_datagrams_dropped_total{reason=\"too_long\"} 1",
            "myapp_datagrams_dropped_total{reason=\"loops_suppressed\"} 0",
            "myapp_datagrams_send_errors_total 0",
        ],
    );
    running.signal(Signal::TERM);
    let ran = running.wait().code(0);
    let summary = schema::json("serve", ran.text().lines().last().unwrap());
    let datagrams = &summary["datagrams"];
    assert_eq!(
        (&datagrams["received"], &datagrams["too_long"]),
        (&2.into(), &1.into())
    );
}

// --- other clients

#[test]
#[ignore = "peer: ncat"]
fn ncat_receives_its_datagrams() {
    for (address, host) in [("127.0.0.1:0", "127.0.0.1"), (":0", "::1")] {
        let server = serve(&["-q"], address);
        let port = server.address().port().to_string();
        for length in [1, 1472, 8000] {
            talks("ncat", &["-u", host, &port], &random_bytes(length));
        }
    }
}

#[test]
#[ignore = "peer: socat"]
fn socat_receives_its_datagrams() {
    let server = serve(&["-q"], ":0");
    let to = format!("UDP4:127.0.0.2:{}", server.address().port());
    for length in [1, 1472, 8192, 60_000] {
        talks("socat", &["-b", "65536", "-", &to], &random_bytes(length));
    }
}

// --- faults

#[test]
fn delay_applies_to_datagrams() {
    let server = serve(&["--delay", "300ms", "--prefix", "> "], "127.0.0.1:0");
    let client = client(server.address());
    let start = Instant::now();
    assert_eq!(exchange(&client, b"late"), b"> late");
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
    client.send(b"later").unwrap();
    server.signal(Signal::TERM);
    assert_eq!(receive(&client), b"> later", "also at the end");
    server.wait().code(0);
}

#[test]
fn same_seed_drops_the_same_datagrams() {
    let answers = |seed: &str, threads: &str| {
        let faults = [
            "--drop-rate=20%",
            "--jitter=1ms",
            "--seed",
            seed,
            "--threads",
            threads,
        ];
        let server = serve(&faults, "127.0.0.1:0");
        let client = client(server.address());
        for number in 0..200_u8 {
            client.send(&[number]).unwrap();
        }
        let ran = server.stop();
        let mut answers = come(&client);
        ran.says(&format!("fault_dropped={} ", 200 - answers.len()));
        assert!(
            (120..190).contains(&answers.len()),
            "{} of 200",
            answers.len()
        );
        answers.sort();
        answers
    };
    let first = answers("7", "1");
    assert_eq!(first, answers("7", "2"));
    assert_ne!(first, answers("8", "1"));
}

#[test]
fn full_udp_delay_queue_pauses_reading() {
    let server = serve(&["-q", "--delay", "1h", "--drain", "0"], "127.0.0.1:0");
    let client = client(server.address());
    let before = server.memory();
    let datagram = random_bytes(1000);
    for _ in 0..100_000 {
        // Datagrams that the server does not read are dropped.
        client.send(&datagram).unwrap();
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 12 * MIB, "grown by {grown} bytes");
    server.stop();
}
