//! Socket activation and readiness notification.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
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
fn inherited_file_is_refused() {
    let folder = Folder::new();
    let file = |name| std::fs::File::open(folder.write(name, "")).unwrap().into();
    for whose in [OURS, "LISTEN_PID=$$ LISTEN_FDS=two"] {
        let mut started = Started::serve("", [file("a"), file("b")], whose, "");
        assert_eq!(started.0.wait().unwrap().code(), Some(2), "{whose}");
    }
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
