//! Addresses to listen on.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::serve::ask;
use crate::harness::{Folder, Program, Server, UNRESOLVABLE_HOST, myapp};

#[test]
fn every_address_is_announced_in_order_with_its_real_port() {
    let program = myapp([
        "serve",
        "127.0.0.2:0",
        "tcp://127.0.0.1:0",
        "[::1]:0",
        "localhost:0",
    ]);
    let server = Server::of(program, 4);
    let ips: Vec<_> = server
        .addresses()
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    assert_eq!(ips[..3], ["127.0.0.2", "127.0.0.1", "::1"]);
    for address in server.addresses() {
        assert_eq!(
            ask(&TcpStream::connect(address).unwrap(), b"hello\n"),
            b"hello\n"
        );
    }
    assert_eq!(server.stop().text(), "", "nothing else is on stdout");
}

#[test]
fn wildcard_address_listens_on_both_families() {
    for address in [":0", "[::]:0"] {
        let server = Server::of(myapp(["serve", address]), 1);
        let port = server.address().port();
        let v4 = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(ask(&v4, b"four\n"), b"four\n");
        let v6 = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        assert_eq!(ask(&v6, b"six\n"), b"six\n");
    }
}

/// Returns the kernel's timer of the server's side of its only connection: the kind of
/// `/proc/net/tcp` (2: keepalive) and the remaining seconds.
fn timer(server: &Server) -> (u8, f64) {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{:04X}", server.address().port());
    let mut open = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fields = open.find(|fields| fields[1].ends_with(&local) && fields[3] == "01");
    let fields = fields.expect("an established connection");
    let (kind, ticks) = fields[5].split_once(':').unwrap();
    let ticks = u64::from_str_radix(ticks, 16).unwrap();
    (kind.parse().unwrap(), ticks as f64 / 100.0)
}

#[test]
fn silent_tcp_peers_are_probed() {
    for (arguments, seconds) in [
        (&["-q"] as &[&str], 60.0),
        (&["-q", "--keepalive", "7s"], 7.0),
        (&["-q", "--keepalive", "0"], 0.0),
    ] {
        let server = Server::start(arguments);
        let client = server.connect();
        ask(&client, b"hello\n");
        let (kind, remaining) = timer(&server);
        let expected = if seconds == 0.0 { 0 } else { 2 };
        assert_eq!(kind, expected, "{arguments:?}");
        assert!(
            (seconds - 5.0..=seconds).contains(&remaining),
            "{remaining} s, {arguments:?}"
        );
    }
    myapp(["serve", "--keepalive", "10h"])
        .run()
        .code(2)
        .says("must be at most 32767s");
}

#[test]
fn multicast_address_is_refused_with_a_reason() {
    for address in ["udp://224.0.0.1:0", "udp://[ff02::1]:0", "239.1.2.3:0"] {
        let says = format!("myapp: listen on {address}: multicast addresses are not supported\n");
        let ran = myapp(["serve", address]).run().code(4).prints("");
        assert_eq!(ran.stderr, says);
    }
}

#[test]
fn bind_error_names_address_and_cause() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let in_use = format!("myapp: listen on {taken}: Address already in use\nhint: ");
    myapp(["serve", "127.0.0.1:0", &taken])
        .run()
        .code(4)
        .prints("")
        .says(&in_use);
    let not_ours = "myapp: listen on 192.0.2.1:0: Cannot assign requested address\nhint: ";
    myapp(["serve", "192.0.2.1:0"])
        .run()
        .code(4)
        .prints("")
        .says(not_ours);
    let address = format!("tls://{taken}");
    let in_use = format!("myapp: listen on {address}: Address already in use\nhint: ");
    myapp(["serve", &address, "--tls-self-signed"])
        .run()
        .code(4)
        .prints("")
        .says(&in_use);
    let unknown = format!("myapp: resolve {UNRESOLVABLE_HOST}: ");
    myapp(["serve", &format!("{UNRESOLVABLE_HOST}:1")])
        .run()
        .code(4)
        .prints("")
        .says(&unknown);
}

#[test]
#[ignore = "peer: unshare"]
fn bind_permission_error_has_a_hint() {
    let folder = Folder::new();
    let locked = folder.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, Permissions::from_mode(0o500)).unwrap();
    let privileges = "Permission denied\nhint: ports below 1024 need privileges";
    for (address, code, says) in [
        ("127.0.0.1:80", 4, privileges),
        ("udp://:7", 4, privileges),
        (
            "unix:locked/socket",
            3,
            "Permission denied\nhint: the socket is created as a file",
        ),
    ] {
        // A user namespace removes the privileges, even if the tests run as root.
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--net"]);
        let ran = folder.myapp(["serve", address]).through(unshare).run();
        ran.code(code)
            .prints("")
            .says(&format!("myapp: listen on {address}: {says}"));
    }
}

#[test]
#[ignore = "peer: unshare, nsenter, ip"]
fn every_interface_ignores_bindv6only() {
    for (only, address) in [
        (0, ":0"),
        (0, "[::]:0"),
        (1, ":0"),
        (1, "[::]:0"),
        (1, "tcp://:0"),
    ] {
        let script = format!(
            "ip link set lo up && echo {only} > /proc/sys/net/ipv6/bindv6only && exec \"$0\" \"$@\""
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "sh", "-c", &script]);
        let server = Server::of(myapp(["serve", address]).through(unshare), 1);
        let port = server.address().port();
        let id = server.id().to_string();
        for host in ["127.0.0.1", "[::1]"] {
            let mut nsenter = Command::new("nsenter");
            nsenter.args(["--user", "--preserve-credentials", "--net", "--target", &id]);
            let to = format!("{host}:{port}");
            let client = myapp(["echo", "-c", &to, "hello"]).through(nsenter);
            client.run().code(0).prints("hello\n");
        }
    }
}

/// Exchanges a message with a server on port 0 and checks the announced host.
#[track_caller]
fn answers_as_announced(
    address: &str,
    serve: impl Fn(Program) -> Program,
    ask: impl Fn(Program, u32) -> Program,
) {
    let over_tls = address.starts_with("tls://");
    let arguments = ["serve", "-q", address].into_iter();
    let program = myapp(arguments.chain(over_tls.then_some("--tls-self-signed")));
    let mut server = serve(program).start();
    let line = server.line();
    let (announced, port) = line.trim_end().rsplit_once(':').unwrap();
    assert_eq!(
        Some(announced),
        format!("listening on {address}").strip_suffix(":0")
    );
    assert_ne!(port, "0");
    let to = line.trim_end().strip_prefix("listening on ").unwrap();
    // A datagram may be lost on a busy machine.
    let arguments = ["echo", "-q", "--retry", "2", "-c", to, "hello"].into_iter();
    let client = myapp(arguments.chain(over_tls.then_some("--insecure")));
    ask(client, server.id()).run().code(0).prints("hello\n");
    server.signal(Signal::TERM);
    server.wait().code(0);
}

#[test]
fn zoned_address_is_announced_as_given() {
    for address in [
        "tcp://[::1%lo]:0",
        "tcp://[::1%1]:0",
        "udp://[::1%lo]:0",
        "tls://[::1%lo]:0",
    ] {
        answers_as_announced(address, |server| server, |client, _| client);
    }
}

#[test]
#[ignore = "peer: unshare, nsenter, ip"]
fn link_local_address_requires_its_interface() {
    let script = "ip link set lo up && ip addr add fe80::1/64 dev lo nodad && exec \"$0\" \"$@\"";
    let alone = |program: Program| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "sh", "-c", script]);
        program.through(unshare)
    };
    let beside = |program: Program, id: u32| {
        let mut nsenter = Command::new("nsenter");
        nsenter.args([
            "--user",
            "--preserve-credentials",
            "--net",
            "--target",
            &id.to_string(),
        ]);
        program.through(nsenter)
    };
    for address in [
        "tcp://[fe80::1%lo]:0",
        "udp://[fe80::1%1]:0",
        "tls://[fe80::1%lo]:0",
    ] {
        answers_as_announced(address, alone, beside);
    }
    let needs = "listen on [fe80::1]:0: Invalid argument\nhint: a link-local address needs";
    alone(myapp(["serve", "[fe80::1]:0"]))
        .run()
        .code(4)
        .says(needs);
}

#[test]
fn unknown_interface_is_a_usage_error() {
    let unknown = "myapp: find the interface of [fe80::1%no-such]: No such device\n";
    for address in ["[fe80::1%no-such]:7", "udp://[fe80::1%no-such]:7"] {
        myapp(["serve", address])
            .run()
            .code(2)
            .prints("")
            .says(unknown);
        myapp(["echo", "-c", address, "hello"])
            .run()
            .code(2)
            .prints("")
            .says(unknown);
    }
}

#[test]
fn port_of_another_instance_is_in_use() {
    for threads in ["1", "2"] {
        let server = Server::start(&["--threads", threads]);
        let address = server.address().to_string();
        let copy = myapp(["serve", "--threads", threads, &address]);
        copy.run().code(4).says("Address already in use");
    }
}

#[test]
fn restarted_server_rebinds_its_port_at_once() {
    let server = Server::start(&[]);
    let address = server.address();
    let client = server.connect();
    ask(&client, b"hello\n");
    server.stop();
    let again = Server::of(myapp(["serve", &address.to_string()]), 1);
    assert_eq!(again.address(), address);
}

#[test]
fn invalid_unix_path_is_a_usage_error() {
    for arguments in [
        &["serve", "localhost"] as &[&str],
        &["serve", "--mode", "word"],
        &["serve", "--chunk", "100"],
        &["serve", "--idle-timeout", "soon"],
        &["serve", "--no-such-option"],
    ] {
        myapp(arguments).run().code(2).prints("");
    }
    for (option, value, says) in [
        ("--max-line", "0", "must be greater than 0"),
        ("--max-connections", "0", "must be greater than 0"),
        ("--max-per-ip", "99999999999999999999", "too large"),
        ("--reset-after", "0", "must be greater than 0"),
        ("--seed", "seven", "not a whole number"),
    ] {
        let ran = myapp(["serve", option, value]).run().code(2).prints("");
        ran.says(&format!("myapp: invalid value '{value}' for '{option} <"))
            .says(says);
    }
    myapp(["serve", "--mode", "line", "--max-line", "2", "--chunk", "3"])
        .run()
        .code(2)
        .says("--chunk has no effect without --mode chunk");
}

#[test]
fn last_of_repeated_options_applies() {
    let server = Server::start(&["--prefix", "first", "--prefix", "-"]);
    assert_eq!(server.exchange(b"x\n"), b"-x\n");
}
