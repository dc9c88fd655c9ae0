//! Socket activation and readiness notification.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::ports::start_on_free_port;
use crate::harness::serve::ask;
use crate::harness::{Folder, Server, myapp};

/// Shell words that pass the sockets to the program itself.
const OURS: &str = "LISTEN_PID=$$";

/// A program with two inherited sockets; killed when dropped.
struct Started(Child);

impl Started {
    /// Starts `myapp serve ARGUMENTS` with two sockets as descriptors 3 and 4; `whose` are shell
    /// words that set their owner.
    fn serve(arguments: &str, sockets: [OwnedFd; 2], whose: &str, notify: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_myapp");
        let script = format!(
            "exec 3<&0 4<&2 0</dev/null 2>/dev/null
             LISTEN_FDS=2 {whose} NOTIFY_SOCKET='{notify}' exec '{program}' serve {arguments}"
        );
        let [third, fourth] = sockets;
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command.stdin(third).stdout(Stdio::piped()).stderr(fourth);
        Self(command.spawn().unwrap())
    }

    /// Returns the next lines of stdout.
    fn lines(&mut self, count: usize) -> Vec<String> {
        let stdout = BufReader::new(self.0.stdout.take().unwrap());
        stdout.lines().take(count).map(Result::unwrap).collect()
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

impl AsMut<Child> for Started {
    fn as_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 100];
    let count = socket.recv(&mut buffer).expect("receive a notification");
    String::from_utf8_lossy(&buffer[..count])
        .trim_end()
        .to_owned()
}

#[test]
fn inherited_sockets_are_served_with_notifications() {
    let folder = Folder::new();
    let tcp = TcpListener::bind("[::1]:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let path = folder.path("handed");
    let unix = UnixListener::bind(&path).unwrap();
    let notify = folder.path("notify");
    let state = UnixDatagram::bind(&notify).unwrap();
    state
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut server = Started::serve(
        "--threads 2",
        [tcp.into(), unix.into()],
        OURS,
        notify.to_str().unwrap(),
    );
    assert_eq!(
        server.lines(2),
        [
            format!("listening on tcp://{address}"),
            format!("listening on unix:{}", path.display())
        ]
    );
    assert_eq!(told(&state), "READY=1");
    assert_eq!(
        ask(&TcpStream::connect(address).unwrap(), b"tcp\n"),
        b"tcp\n"
    );
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"unix\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "unix\n");
    server.stop();
    assert_eq!(told(&state), "STOPPING=1");
    assert!(path.exists(), "the path belongs to who made it");
}

#[test]
fn abstract_notify_socket_is_supported() {
    let name = format!("myapp-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let state = UnixDatagram::bind_addr(&address).unwrap();
    state
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let server = myapp(["serve", "-q", "0"]).env("NOTIFY_SOCKET", format!("@{name}"));
    let server = Server::of(server, 1);
    assert_eq!(told(&state), "READY=1");
    server.stop().silent();
    assert_eq!(told(&state), "STOPPING=1");
}

#[test]
fn inherited_udp_socket_and_arguments_are_served() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = Started::serve("-q 127.0.0.2:0", [udp.into(), tcp.into()], OURS, "");
    let lines = server.lines(3);
    assert_eq!(lines[0], format!("listening on udp://{address}"));
    assert!(
        lines[2].starts_with("listening on tcp://127.0.0.2:"),
        "{lines:?}"
    );
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.send_to(b"datagram", address).unwrap();
    let mut buffer = [0; 100];
    let (count, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..count], from), (b"datagram".as_slice(), address));
    server.stop();
}

#[test]
fn sockets_of_another_process_are_ignored() {
    for whose in ["LISTEN_PID=1", "LISTEN_PID=0", "LISTEN_PID=nobody", ""] {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().into());
        let mut server = Started::serve("-q 127.0.0.2:0", sockets, whose, "");
        let lines = server.lines(1);
        assert!(
            lines[0].starts_with("listening on tcp://127.0.0.2:"),
            "{whose}: {lines:?}"
        );
    }
}

#[test]
fn passed_socket_named_tls_speaks_tls() {
    let sockets = || [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let names = &format!("{OURS} LISTEN_FDNAMES=tls:plain");
    let [tls, plain] = sockets();
    let address = tls.local_addr().unwrap();
    let plain_address = plain.local_addr().unwrap();
    let sockets_of = [tls.into(), plain.into()];
    let mut server = Started::serve("-q --tls-self-signed", sockets_of, names, "");
    let lines = [
        format!("listening on tls://{address}"),
        format!("listening on tcp://{plain_address}"),
    ];
    assert_eq!(server.lines(2), lines);
    let address = format!("tls://{address}");
    let echo = ["echo", "-q", "--insecure", "-c", &address, "hello"];
    myapp(echo).run().code(0).prints("hello\n");
    let plain = TcpStream::connect(plain_address).unwrap();
    assert_eq!(ask(&plain, b"plain\n"), b"plain\n");
    server.stop();

    let mut server = Started::serve("", sockets().map(OwnedFd::from), names, "");
    assert_eq!(server.0.wait().unwrap().code(), Some(2), "no certificate");
    let unnamed = Started::serve("--tls-self-signed", sockets().map(OwnedFd::from), OURS, "");
    assert_eq!(
        { unnamed }.0.wait().unwrap().code(),
        Some(2),
        "no use for the certificate"
    );
    let udp = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap().into());
    let mut server = Started::serve("--tls-self-signed", udp, names, "");
    assert_eq!(server.0.wait().unwrap().code(), Some(2), "TLS over UDP");
}

#[test]
fn number_of_passed_sockets_must_be_in_range() {
    for count in ["3", "-1", "two", "1000000000", "99999999999999999999"] {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().into());
        let whose = format!("{OURS} LISTEN_FDS={count}");
        let mut server = Started::serve("-q", sockets, &whose, "");
        assert_eq!(server.0.wait().unwrap().code(), Some(2), "{count}");
    }
}

/// Starts a server with a watchdog of 200 ms, and returns its notifications up to the end.
fn watchdog_notifications(environment: &[(&str, &str)]) -> Vec<String> {
    let folder = Folder::new();
    let notify = folder.path("notify");
    let state = UnixDatagram::bind(&notify).unwrap();
    state
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut program = myapp(["serve", "-q", "--threads", "2", "--drain", "0", "0"])
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "200000");
    for (name, value) in environment {
        program = program.env(name, value);
    }
    // Read meanwhile: the kernel queues ten at most.
    let reader = thread::spawn(move || {
        let mut notifications = Vec::new();
        while notifications.last().is_none_or(|last| last != "STOPPING=1") {
            notifications.push(told(&state));
        }
        notifications
    });
    let server = Server::of(program, 1);
    thread::sleep(Duration::from_millis(1100));
    server.stop();
    reader.join().unwrap()
}

#[test]
fn watchdog_is_notified_at_half_its_interval() {
    let notifications = watchdog_notifications(&[]);
    assert_eq!(notifications[0], "READY=1");
    let count = notifications
        .iter()
        .filter(|state| *state == "WATCHDOG=1")
        .count();
    // Eleven on an idle machine.
    assert!((6..=13).contains(&count), "{count} notifications");
    let other = watchdog_notifications(&[("WATCHDOG_PID", "1")]);
    assert_eq!(other, ["READY=1", "STOPPING=1"]);
    let off = watchdog_notifications(&[("WATCHDOG_USEC", "0")]);
    assert_eq!(off, ["READY=1", "STOPPING=1"]);
}

#[test]
fn inherited_file_is_refused() {
    let folder = Folder::new();
    let file = |name| std::fs::File::open(folder.write(name, "")).unwrap().into();
    let mut started = Started::serve("", [file("a"), file("b")], OURS, "");
    assert_eq!(started.0.wait().unwrap().code(), Some(2));
}

#[test]
#[ignore = "peer: systemd-socket-activate"]
fn systemd_socket_activate_works() {
    let (mut started, port) = start_on_free_port(|port| {
        let mut command = Command::new("systemd-socket-activate");
        command
            .arg("-l")
            .arg(format!("127.0.0.1:{port}"))
            .arg(env!("CARGO_BIN_EXE_myapp"))
            .arg("serve");
        Started(command.stdout(Stdio::piped()).spawn().unwrap())
    });
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(ask(&stream, b"first\n"), b"first\n");
    assert_eq!(
        started.lines(1),
        [format!("listening on tcp://127.0.0.1:{port}")]
    );
    started.stop();
}

#[test]
#[ignore = "peer: systemd-socket-activate"]
fn systemd_socket_activate_passes_tls_sockets() {
    let (mut started, port) = start_on_free_port(|port| {
        let mut command = Command::new("systemd-socket-activate");
        command
            .args(["--fdname=tls", "-l"])
            .arg(format!("127.0.0.1:{port}"))
            .arg(env!("CARGO_BIN_EXE_myapp"))
            .args(["serve", "--tls-self-signed"]);
        Started(command.stdout(Stdio::piped()).spawn().unwrap())
    });
    let address = format!("tls://127.0.0.1:{port}");
    let echo = ["echo", "-q", "--insecure", "-c", &address, "hello"];
    myapp(echo).run().code(0).prints("hello\n");
    assert_eq!(started.lines(1), [format!("listening on {address}")]);
    started.stop();
}

#[test]
#[ignore = "peer: systemd-analyze"]
fn service_unit_is_hardened() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    let analyze = |arguments: &[&str], files: &[PathBuf]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).args(files);
        command.output().expect("run systemd-analyze")
    };
    // Exposure level times ten.
    let security = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    let output = analyze(&security, &[units.join("myapp.service")]);
    let says = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{says}");

    // The program is not installed where the unit expects it.
    let folder = Folder::new();
    fs::create_dir(folder.path("myapp.service.d")).unwrap();
    let copies = [
        "myapp.service",
        "myapp.socket",
        "myapp-tls.socket",
        "myapp.service.d/tls.conf",
    ]
    .map(|unit| {
        let text = fs::read_to_string(units.join(unit)).unwrap();
        folder.write(unit, text.replace("/usr/bin/myapp", "/bin/true"))
    });
    let output = analyze(&["verify", "--man=no"], &copies[..3]);
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && says.is_empty(), "{says}");
}
