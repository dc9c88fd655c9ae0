//! `myapp echo` over UDP.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::accounting::assert_adds_up;
use crate::harness::ports::refusing_udp;
use crate::harness::{Program, myapp, schema, until};

/// A UDP server with scripted replies, stopped on drop.
struct Peer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Returns the number of client sockets.
    thread: Option<JoinHandle<usize>>,
}

impl Peer {
    /// Starts a server that sends the datagrams returned by `behave`, which gets each received
    /// datagram with its number, counted from 0.
    fn start(mut behave: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            let mut peers = HashSet::new();
            let mut number = 0;
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                peers.insert(from);
                for answer in behave(number, buffer[..length].to_vec()) {
                    socket.send_to(&answer, from).unwrap();
                }
                number += 1;
            }
            peers.len()
        };
        Self {
            address,
            stop,
            thread: Some(thread::spawn(work)),
        }
    }

    /// Stops the server and returns the number of client sockets.
    fn sockets(mut self) -> usize {
        self.stop.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Echoes each datagram.
fn same(_: usize, datagram: Vec<u8>) -> Vec<Vec<u8>> {
    vec![datagram]
}

fn echo(peer: &Peer, arguments: &[&str]) -> Program {
    let address = format!("udp://{}", peer.address);
    myapp([&["echo", "-q", "-c", &address], arguments].concat())
}

/// Runs a load and returns its report.
#[track_caller]
fn report(peer: &Peer, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json", "--connections", "1"]].concat();
    let ran = echo(peer, &arguments).run().code(0).silent();
    let report = schema::json("echo", ran.text().trim_end());
    assert_adds_up(&report);
    report
}

/// Returns counters of a report.
#[track_caller]
fn counted<const N: usize>(report: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| {
        report[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {report}"))
    })
}

// --- messages

#[test]
fn each_message_and_reply_is_a_datagram() {
    let peer = Peer::start(|_, datagram| vec![[b"> ", &datagram[..]].concat()]);
    echo(&peer, &["one", "", "three"])
        .run()
        .code(0)
        .prints("> one\n> \n> three\n")
        .silent();
    assert_eq!(peer.sockets(), 3);
    let peer = Peer::start(same);
    echo(&peer, &["--verify"])
        .stdin("a\nb\n")
        .run()
        .code(0)
        .prints("a\nb\n");
    echo(&peer, &["--one-connection", "a", "b", "c"])
        .run()
        .code(0)
        .prints("a\nb\nc\n");
    assert_eq!(peer.sockets(), 3);
    let peer = Peer::start(|_, _| vec![b"no end".into()]);
    echo(&peer, &["x"]).run().code(0).prints("no end\n");
    echo(&peer, &["--verify", "x"])
        .run()
        .code(1)
        .says("differs from its message at offset 0");
}

#[test]
fn lost_message_is_a_timeout_of_its_own() {
    let peer = Peer::start(|_, datagram| match &datagram[..] {
        b"lost\n" => vec![],
        _ => vec![datagram],
    });
    let arguments = ["--timeout", "300ms", "--one-connection", "a", "lost", "b"];
    let ran = echo(&peer, &arguments).run().code(10).prints("a\nb\n");
    let address = peer.address;
    let text = "timed out after 300ms before the reply\n";
    ran.says(&format!(
        "myapp: message 2: read reply from udp://{address}: {text}"
    ));
    assert_eq!(
        peer.sockets(),
        2,
        "a late reply is not taken for the next one"
    );
}

#[test]
fn lost_message_is_retried() {
    let peer = Peer::start(|number, datagram| match number {
        0 | 1 => vec![],
        _ => vec![datagram],
    });
    let arguments = ["--timeout", "200ms", "--retry", "2", "again"];
    echo(&peer, &arguments)
        .run()
        .code(0)
        .prints("again\n")
        .silent();
}

#[test]
fn refused_and_oversized_datagrams_fail_at_once() {
    let refusing = refusing_udp();
    let address = format!("udp://{}", refusing.local_addr().unwrap());
    let ran = myapp(["echo", "-q", "-c", &address, "x"])
        .run()
        .code(4)
        .prints("");
    ran.says(&format!("read reply from {address}: Connection refused"));
    let ping = ["-n", "2", "--interval", "0"];
    let ran = myapp([&["echo", "-c", &address], &ping[..]].concat())
        .run()
        .code(4);
    ran.says("message 1: read reply from ")
        .says("message 2: read reply from ");
    let long = "x".repeat(65_507);
    let peer = Peer::start(same);
    echo(&peer, &[])
        .stdin(long)
        .run()
        .code(4)
        .says("Message too long");
}

#[test]
fn refused_address_falls_back_to_the_next() {
    let addresses = ("localhost", 0).to_socket_addrs().unwrap();
    let peer = Peer::start(same);
    let port = peer.address.port();
    // If the name has only an IPv4 address or the port is in use, no address refuses.
    let refuses = |address: SocketAddr| UdpSocket::bind((address.ip(), port)).is_ok();
    let refused = addresses
        .clone()
        .next()
        .is_some_and(|first| first.is_ipv6() && refuses(first));
    println!("the first address refuses: {refused}");
    let address = format!("udp://localhost:{port}");
    let ran = myapp(["echo", "-q", "--one-connection", "-c", &address, "a", "b"])
        .run()
        .code(0);
    ran.prints("a\nb\n").silent();
    for load in [
        ["-n", "3", "--interval", "0"],
        ["-n", "30", "--in-flight", "3"],
    ] {
        let ran = myapp([&["echo", "-q", "-c", &address], &load[..]].concat())
            .run()
            .code(0);
        let text = ran.silent().text();
        assert!(
            text.contains("3 sent, 3 answered") || text.contains("30 sent, 30 answered"),
            "{text}"
        );
    }
}

#[test]
fn stream_options_over_udp_are_usage_errors() {
    let peer = Peer::start(same);
    let ran = echo(&peer, &["--raw"]).run().code(2).prints("");
    ran.says("--raw requires a stream")
        .says("hint: without --raw, each line");
    for size in ["7", "65528"] {
        let ran = echo(&peer, &["-n", "1", "--size", size])
            .run()
            .code(2)
            .prints("");
        ran.says("for udp://\n")
            .says("hint: use --size SIZE, from 8 to 65527");
    }
    let ran = echo(&peer, &["--connections", "1", "hola"])
        .run()
        .code(2)
        .prints("");
    ran.says("it has no sequence number");
    assert_eq!(peer.sockets(), 0);
}

// --- ping

#[test]
fn ping_counts_loss_and_duplicates() {
    let peer = Peer::start(|number, datagram| match number {
        3 | 7 => vec![],
        5 => vec![datagram.clone(), datagram],
        _ => vec![datagram],
    });
    let arguments = ["-n", "10", "--interval", "1ms", "--timeout", "300ms"];
    let ran = echo(&peer, &arguments).run().code(0).silent();
    let text = ran.text();
    let replies: Vec<_> = text
        .lines()
        .filter(|line| line.contains(" time="))
        .collect();
    assert_eq!(replies.len(), 8, "{text}");
    assert!(replies[3].contains(": seq=5 time="), "{text}");
    assert!(
        text.contains(": 10 sent, 8 answered, 20.00% lost, in "),
        "{text}"
    );
    assert!(text.contains("\nduplicates: 1\n"), "{text}");
    assert_eq!(peer.sockets(), 1);
}

#[test]
fn total_loss_is_a_timeout() {
    let peer = Peer::start(|_, _| vec![]);
    let silence = ["--timeout", "200ms", "-n", "2"];
    let ping = echo(&peer, &[&silence[..], &["--interval", "0"]].concat())
        .run()
        .code(10);
    assert!(
        ping.text().contains(": 2 sent, 0 answered, 100.00% lost"),
        "{}",
        ping.text()
    );
    ping.says("timed out after 200ms");
    let load = echo(&peer, &[&silence[..], &["--in-flight", "2"]].concat())
        .run()
        .code(10);
    assert!(
        load.text().contains("\n2 lost (100.00%), 0 duplicates, "),
        "{}",
        load.text()
    );
    load.says("timed out after 200ms");
}

#[test]
fn corrupted_datagram_is_an_error() {
    let peer = Peer::start(|_, mut datagram| {
        datagram[20] ^= 1;
        vec![datagram]
    });
    let ran = echo(&peer, &["-n", "1"]).run().code(1);
    ran.says("differs at offset 20 of connection 1: a byte was changed");
    let ran = echo(&peer, &["-n", "1", "--no-verify"]).run().code(0);
    assert!(
        ran.text().contains(": 1 sent, 1 answered"),
        "{}",
        ran.text()
    );
}

// --- load

#[test]
fn load_counts_every_datagram() {
    let peer = Peer::start(same);
    for size in ["8", "1472", "65507"] {
        let report = report(&peer, &["-n", "500", "--in-flight", "2", "--size", size]);
        assert_eq!(counted(&report, ["sent", "answered"]), [500, 500]);
        assert_eq!(
            counted(&report, ["lost", "duplicates", "out_of_order"]),
            [0, 0, 0]
        );
    }
}

#[test]
fn loss_duplicates_and_order_are_no_errors() {
    let peer = Peer::start(|number, datagram| {
        if number % 50 == 7 {
            vec![]
        } else {
            vec![datagram]
        }
    });
    let lossy = report(
        &peer,
        &["-n", "500", "--in-flight", "20", "--timeout", "300ms"],
    );
    assert_eq!(counted(&lossy, ["lost", "answered"]), [10, 490]);

    let peer = Peer::start(|_, datagram| vec![datagram.clone(), datagram]);
    let twice = report(&peer, &["-n", "500", "--in-flight", "4"]);
    let [answered, duplicates] = counted(&twice, ["answered", "duplicates"]);
    assert_eq!(answered, 500);
    assert!((490..=500).contains(&duplicates), "{twice}");

    let mut held = None;
    let peer = Peer::start(move |_, datagram| match held.take() {
        None => {
            held = Some(datagram);
            vec![]
        }
        Some(first) => vec![datagram, first],
    });
    let swapped = report(&peer, &["-n", "500", "--in-flight", "2"]);
    let names = ["answered", "lost", "duplicates", "out_of_order"];
    assert_eq!(counted(&swapped, names), [500, 0, 0, 250]);
}

#[test]
fn client_and_server_agree_on_loss() {
    let faults = [
        "serve",
        "--drop-rate",
        "10%",
        "--jitter",
        "2ms",
        "--seed",
        "7",
        "-q",
        "udp://0",
    ];
    let mut server = myapp(faults).start();
    let line = server.line();
    let address = line.strip_prefix("listening on ").unwrap();
    let load = [
        "-n",
        "1000",
        "--in-flight",
        "100",
        "--timeout",
        "1s",
        "--json",
    ];
    let ran = myapp([&["echo", "-c", address], &load[..]].concat())
        .run()
        .code(0);
    let report = schema::json("echo", ran.text().trim_end());
    let [answered, lost, out_of_order] = counted(&report, ["answered", "lost", "out_of_order"]);
    assert_eq!(answered + lost, 1000);
    assert!((50..150).contains(&lost) && out_of_order > 0, "{report}");
    let errors = report["errors"].as_object().unwrap();
    assert!(errors.values().all(|count| *count == 0), "{report}");
}

/// Returns whether a socket connected to this port has an unread datagram.
fn has_unread_datagram_from(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let from = fields[2].ends_with(&format!(":{port:04X}"));
        from && !fields[4].ends_with(":00000000")
    })
}

#[test]
fn duplicate_reply_is_not_taken_for_the_next_one() {
    let peer = Peer::start(|_, datagram| vec![datagram.clone(), datagram]);
    let address = format!("udp://{}", peer.address);
    let arguments = ["echo", "--one-connection", "-c", &address];
    let mut running = myapp(arguments).hold_stdin().start();
    for number in 1..=3 {
        running.write(format!("message {number}\n"));
        assert_eq!(running.line(), format!("message {number}"));
        until(|| has_unread_datagram_from(peer.address.port()));
    }
    running.close_stdin();
    running
        .wait()
        .code(0)
        .says("late or duplicate replies discarded datagrams=2");
}

#[test]
fn late_replies_are_counted() {
    // Replies to each fifth message arrive with the next one, after its time limit.
    let mut held = None;
    let peer = Peer::start(move |number, datagram| {
        if number % 5 == 3 {
            held = Some(datagram);
            return vec![];
        }
        held.take().into_iter().chain([datagram]).collect()
    });
    let report = report(
        &peer,
        &["-n", "100", "--timeout", "100ms", "--connections", "1"],
    );
    let [due, lost, late] = counted(&report, ["due", "lost", "late_replies"]);
    // On a busy machine other replies can be late too.
    assert!(due == 100 && lost >= 20 && late >= 20, "{report}");
    assert_adds_up(&report);
    let ping = ["-n", "10", "--interval", "0", "--timeout", "100ms"];
    let ran = echo(&peer, &[&ping[..], &["--json"]].concat())
        .run()
        .code(0);
    let report = schema::json("echo", ran.text().trim_end());
    let [late] = counted(&report, ["late_replies"]);
    assert!(late >= 2, "{report}");
    let text = echo(&peer, &ping).run().code(0).text();
    assert!(text.contains("late replies: "), "{text}");
}

#[test]
fn datagrams_dropped_by_the_kernel_are_a_warning() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    let arguments = ["echo", "-q", "-c", &address, "--connections", "1", "--json"];
    let more = ["--size", "1400", "--duration", "1h", "--timeout", "1s"];
    let running = myapp(arguments.iter().chain(&more)).start();
    let mut datagram = [0; 1400];
    let mut receive = || {
        let (len, from) = socket.recv_from(&mut datagram).expect("a message");
        (datagram[..len].to_vec(), from)
    };
    for _ in 0..50 {
        let (reply, from) = receive();
        socket.send_to(&reply, from).unwrap();
    }
    let (reply, from) = receive();
    running.signal(Signal::STOP);
    until(|| running.is_stopped());
    // More than the receive buffer holds, even at 8 MiB.
    for _ in 0..20_000 {
        socket.send_to(&reply, from).unwrap();
    }
    running.signal(Signal::CONT);
    for _ in 0..50 {
        let (reply, from) = receive();
        socket.send_to(&reply, from).unwrap();
    }
    running.signal(Signal::INT);
    let report = schema::json("echo", running.wait().code(130).text().trim_end());
    let names = ["receive_drops", "duplicates", "late_replies"];
    let [drops, duplicates, late] = counted(&report, names);
    // Later replies can be dropped too.
    let copies = drops + duplicates + late;
    assert!((19_999..20_100).contains(&copies), "{report}");
    assert!(drops > 1000, "{report}");
    let warnings = report["warnings"].as_array().unwrap();
    let warning = warnings
        .iter()
        .find(|warning| warning["code"] == "receive_drops");
    let message = warning.unwrap()["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("{drops} datagrams")),
        "{message}"
    );
}

#[test]
fn load_with_many_in_flight_receives_and_ends() {
    let peer = Peer::start(same);
    let arguments = ["--in-flight", "1000000", "--timeout", "300ms"];
    let bounded = [&arguments[..], &["--duration", "300ms"]].concat();
    let report = report(&peer, &bounded);
    let [answered] = counted(&report, ["answered"]);
    assert!(answered > 1000, "{report}");
    let endless = [&arguments[..], &["--duration", "1h", "--json"]].concat();
    let received = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&received);
    let peer = Peer::start(move |number, datagram| {
        count.store(number, SeqCst);
        vec![datagram]
    });
    let running = echo(&peer, &endless).start();
    until(|| received.load(SeqCst) > 1000);
    running.signal(Signal::INT);
    let report = schema::json("echo", running.wait().code(130).text().trim_end());
    assert_adds_up(&report);
}

#[test]
fn messages_of_a_corrupted_socket_are_counted() {
    let peer = Peer::start(|number, mut datagram| {
        datagram[20] ^= u8::from(number % 50 == 49);
        vec![datagram]
    });
    let arguments = "--json --connections 1 --in-flight 10 -n 1000 --timeout 1s";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let ran = echo(&peer, &arguments).run().code(1);
    let report = schema::json("echo", ran.text().trim_end());
    assert_adds_up(&report);
    let [due, mismatched] = counted(&report, ["due", "mismatched"]);
    assert_eq!((due, mismatched > 0), (1000, true), "{report}");
}
