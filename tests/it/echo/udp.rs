//! `myapp echo` over UDP.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Program, myapp, schema};

/// A peer that answers datagrams as it is told; ended when dropped.
struct Peer {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    /// Yields from how many sockets datagrams came.
    thread: Option<JoinHandle<usize>>,
}

impl Peer {
    /// Starts one that answers the datagram with this number, counted from 0, with these.
    fn start(mut behave: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let (address, over) = (
            socket.local_addr().unwrap(),
            Arc::new(AtomicBool::new(false)),
        );
        let ended = Arc::clone(&over);
        let work = move || {
            let (mut peers, mut number, mut buffer) = (HashSet::new(), 0, vec![0; 1 << 16]);
            while !ended.load(SeqCst) {
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
            over,
            thread: Some(thread::spawn(work)),
        }
    }

    /// From how many sockets datagrams came.
    fn sockets(mut self) -> usize {
        self.over.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Answers each datagram with itself.
fn same(_: usize, datagram: Vec<u8>) -> Vec<Vec<u8>> {
    vec![datagram]
}

fn echo(peer: &Peer, arguments: &[&str]) -> Program {
    let address = format!("udp://{}", peer.address);
    myapp([&["echo", "-q", "-c", &address], arguments].concat())
}

/// The report of a load.
#[track_caller]
fn report(peer: &Peer, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json", "--connections", "1"]].concat();
    let ran = echo(peer, &arguments).run().code(0).silent();
    schema::json("echo", ran.text().trim_end())
}

/// Figures of a report.
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
fn each_message_is_a_datagram_and_so_is_its_reply() {
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
fn a_message_that_is_lost_is_a_timeout_and_the_others_come() {
    let peer = Peer::start(|_, datagram| match &datagram[..] {
        b"lost\n" => vec![],
        _ => vec![datagram],
    });
    let arguments = ["--timeout", "300ms", "--one-connection", "a", "lost", "b"];
    let ran = echo(&peer, &arguments).run().code(10).prints("a\nb\n");
    let address = peer.address;
    let text = "timed out after 300ms, before it came\n";
    ran.says(&format!(
        "myapp: message 2: read the reply of udp://{address}: {text}"
    ));
    assert_eq!(
        peer.sockets(),
        2,
        "what comes late is not taken for the next reply"
    );
}

#[test]
fn a_message_that_is_lost_is_sent_again_if_that_is_wanted() {
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
fn where_nobody_is_or_no_datagram_fits_that_is_told_at_once() {
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let address = format!("udp://{nobody}");
    let ran = myapp(["echo", "-q", "-c", &address, "x"])
        .run()
        .code(4)
        .prints("");
    ran.says(&format!("read the reply of {address}: Connection refused"));
    let ping = ["-n", "2", "--interval", "0"];
    let ran = myapp([&["echo", "-c", &address], &ping[..]].concat())
        .run()
        .code(4);
    ran.says("message 1: read the reply of ")
        .says("message 2: read the reply of ");
    let long = "x".repeat(65_507);
    let peer = Peer::start(same);
    echo(&peer, &[])
        .stdin(long)
        .run()
        .code(4)
        .says("Message too long");
}

#[test]
fn where_one_address_of_a_name_refuses_the_next_is_tried() {
    let addresses = ("localhost", 0).to_socket_addrs().unwrap();
    let peer = Peer::start(same);
    let port = peer.address.port();
    // Where the name is of IPv4 alone, or somebody has this port, there is nothing to refuse.
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
fn what_makes_no_sense_with_datagrams_is_a_usage_error() {
    let peer = Peer::start(same);
    let ran = echo(&peer, &["--raw"]).run().code(2).prints("");
    ran.says("--raw needs a stream")
        .says("hint: without it, each line");
    for size in ["7", "65528"] {
        let ran = echo(&peer, &["-n", "1", "--size", size])
            .run()
            .code(2)
            .prints("");
        ran.says("for udp://\n")
            .says("hint: --size SIZE, from 8 to 65527");
    }
    let ran = echo(&peer, &["--connections", "1", "hola"])
        .run()
        .code(2)
        .prints("");
    ran.says("it has no number in it");
    assert_eq!(peer.sockets(), 0);
}

// --- ping

#[test]
fn ping_counts_what_is_lost_or_comes_twice_and_neither_is_an_error() {
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
fn where_not_one_reply_comes_that_is_a_timeout() {
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
fn a_reply_that_is_not_the_message_is_an_error() {
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
fn a_load_counts_every_datagram() {
    let peer = Peer::start(same);
    for size in ["8", "1472", "65507"] {
        let report = report(&peer, &["-n", "500", "--in-flight", "2", "--size", size]);
        assert_eq!(counted(&report, ["sent", "answered"]), [500, 500]);
        assert_eq!(
            counted(&report, ["lost", "duplicates", "reordered"]),
            [0, 0, 0]
        );
    }
}

#[test]
fn loss_duplicates_and_order_are_counted_and_are_no_errors() {
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
    let names = ["answered", "lost", "duplicates", "reordered"];
    assert_eq!(counted(&swapped, names), [500, 0, 0, 250]);
}

#[test]
fn our_own_server_and_client_agree_on_what_was_lost() {
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
    let [answered, lost, reordered] = counted(&report, ["answered", "lost", "reordered"]);
    assert_eq!(answered + lost, 1000);
    assert!((50..150).contains(&lost) && reordered > 0, "{report}");
    let errors = report["errors"].as_object().unwrap();
    assert!(errors.values().all(|count| *count == 0), "{report}");
}
