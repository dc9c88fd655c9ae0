//! Local addresses and ports of connections.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::echo;
use crate::harness::{Folder, Peer, RunOutput, myapp, raw_peer, schema};

/// Number of connections by local address of the client.
type Counts = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// Asserts that the connections came from 127.0.0.2 and 127.0.0.3 equally.
#[track_caller]
fn assert_both(counts: &Counts, connections: usize) {
    let found = std::mem::take(&mut *counts.lock().unwrap());
    let expected = [[127, 0, 0, 2], [127, 0, 0, 3]].map(|ip| (ip.into(), connections / 2));
    assert_eq!(found, BTreeMap::from(expected));
}

#[test]
fn connections_use_the_local_addresses_in_turn() {
    let counts = Counts::default();
    let counted = counts.clone();
    let peer = Peer::start(move |stream| {
        let from = stream.peer_addr()?.ip();
        *counted.lock().unwrap().entry(from).or_default() += 1;
        raw_peer::echo(stream)
    });
    for (arguments, connections) in [
        ("a b c d", 4),
        ("--connections 4 -n 8", 4),
        ("--connections 2 --new-connections -n 10", 10),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let bound = [&["--bind", "127.0.0.2,127.0.0.3"], &arguments[..]].concat();
        echo(&peer, &bound).run().code(0);
        assert_both(&counts, connections);
    }
    let bound = ["--bind", "127.0.0.4", "--wait-ready", "1m", "-n", "1"];
    echo(&peer, &bound).run().code(0);
    let found = counts.lock().unwrap();
    let both = ([127, 0, 0, 4].into(), 2);
    assert_eq!(*found, BTreeMap::from([both]), "ready check and ping");
}

#[test]
fn datagrams_use_the_local_addresses_in_turn() {
    let counts = Counts::default();
    let counted = counts.clone();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    // Ends with the tests.
    thread::spawn(move || {
        let mut datagram = [0; 100];
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            *counted.lock().unwrap().entry(from.ip()).or_default() += 1;
            socket.send_to(&datagram[..len], from).unwrap();
        }
    });
    for arguments in ["a b c d", "--connections 2 -n 4"] {
        let bound = [
            "echo",
            "-q",
            "-c",
            &address,
            "--bind",
            "127.0.0.2,127.0.0.3",
        ];
        let ran = myapp(bound.into_iter().chain(arguments.split(' '))).run();
        ran.code(0);
        assert_both(&counts, 4);
    }
}

#[test]
fn unusable_local_address_is_named() {
    let peer = Peer::start(raw_peer::echo);
    let start = Instant::now();
    for server in ["", "udp://"] {
        let server = format!("{server}{}", peer.address());
        for mode in [["hola"].as_slice(), &["-n", "1"], &["--connections", "1"]] {
            let run = |local: &str| {
                let arguments = ["echo", "-q", "-c", &server, "--bind", local];
                myapp(arguments.iter().chain(mode)).run().code(4)
            };
            // An address for documentation (RFC 5737).
            run("192.0.2.1")
                .says("bind to 192.0.2.1: Cannot assign requested address")
                .says("hint: use an address of this machine with --bind");
            run("::1").says("no IPv6 address of the server, as the local address requires");
        }
    }
    // Not retried as if all ports were in use.
    assert!(start.elapsed() < Duration::from_secs(30));
    let unix = ["echo", "-c", "unix:/a", "--bind", "127.0.0.1", "hola"];
    let ran = myapp(unix).run().code(2);
    ran.says("--bind requires TCP or UDP, not a Unix socket");
    myapp(["echo", "--bind", "localhost", "hola"]).run().code(2);
    echo(&peer, &["hola"]).run().code(0);
}

/// Runs a shell script in a network with 100 local ports for each pair of addresses, and
/// `myapp serve` on port 8888.
fn run_with_few_ports(script: &str) -> RunOutput {
    let setup = "ip link set lo up
        echo 50000 50099 >/proc/sys/net/ipv4/ip_local_port_range
        \"$0\" serve -q 8888 >ready & server=$!
        until [ -s ready ]; do sleep 0.01; done";
    let script = format!("{setup}\n{script}\ncode=$?; kill $server; exit $code");
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--net", "sh", "-c", &script]);
    let folder = Folder::new();
    folder.myapp::<&str>([]).through(unshare).run()
}

#[test]
#[ignore = "peer: unshare"]
fn connections_wait_for_a_free_local_port() {
    // Closed connections occupy their ports for a second (tcp_tw_reuse on the loopback device).
    let ran = run_with_few_ports(
        "\"$0\" echo -q --connections 4 --new-connections -n 250 --timeout 30s --json",
    );
    let report = schema::json("echo", &ran.code(0).text());
    assert_eq!(report["answered"], 250, "{report}");
    let ran = run_with_few_ports("seq 250 | \"$0\" echo -q --timeout 30s | wc -l");
    ran.code(0).prints("250\n");
    let ran = run_with_few_ports("seq 250 | \"$0\" echo -q --timeout 100ms >/dev/null");
    ran.code(4)
        .says("Cannot assign requested address")
        .says("use several addresses with --bind");
}

#[test]
#[ignore = "peer: unshare"]
fn each_local_address_has_its_own_ports() {
    let script = "\"$0\" echo -q --connections 250 -n 250 --json --timeout 10s \
        --bind 127.0.0.2,127.0.0.3,127.0.0.4";
    let ran = run_with_few_ports(script).code(0);
    let report = schema::json("echo", &ran.text());
    assert_eq!(report["answered"], 250, "{report}");
}
