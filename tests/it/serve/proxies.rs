//! Other proxies in front of the server, with the PROXY protocol.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::tls;
use crate::harness::serve::ask;
use crate::harness::third_party::{self, ListeningProgram};
use crate::harness::{Folder, RunOutput, Running, Server, until};

/// Headers are required from 127.0.0.1.
const REQUIRE: [&str; 4] = ["--proxy-protocol", "require", "--proxy-from", "127.0.0.1"];

/// A running proxy.
struct Proxy(ListeningProgram);

impl Proxy {
    #[track_caller]
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.0.address()).unwrap();
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).unwrap();
        stream
    }

    /// Performs a handshake and exchanges a message, and returns the address of the client.
    #[track_caller]
    fn ask_over_tls(&self, config: Arc<ClientConfig>) -> SocketAddr {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connect();
        let local = stream.local_addr().unwrap();
        let mut client = StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream);
        assert_eq!(tls::ask(&mut client, b"hello\n"), b"hello\n");
        local
    }

    /// Exchanges a short and a long message, and returns the address of the client.
    #[track_caller]
    fn ask(&self) -> SocketAddr {
        let stream = self.connect();
        assert_eq!(ask(&stream, b"hello\n"), b"hello\n");
        let bytes = [vec![b'x'; 500_000], b"\n".to_vec()].concat();
        let mut answer = vec![0; bytes.len()];
        thread::scope(|scope| {
            scope.spawn(|| (&stream).write_all(&bytes).unwrap());
            (&stream).read_exact(&mut answer).unwrap();
        });
        assert!(answer == bytes, "the reply differs");
        stream.local_addr().unwrap()
    }
}

/// Starts HAProxy with options of its listening socket and of its server.
fn haproxy(folder: &Folder, bind: &str, server: &str) -> Proxy {
    let program = ListeningProgram::start(|port| {
        let config = format!(
            "defaults
               mode tcp
               timeout connect 5s
               timeout client 30s
               timeout server 30s
             listen it
               bind 127.0.0.1:{port} {bind}
               bind unix@{}
               unique-id-format %ci:%cp
               server one {server}\n",
            folder.path("front").display()
        );
        let config = folder.write("haproxy.cfg", config);
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(config);
        command
    });
    Proxy(program)
}

/// Starts nginx, which forwards to a server.
fn nginx(folder: &Folder, server: &str) -> Proxy {
    let program = third_party::nginx(folder, |port| {
        format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
             stream {{
               server {{ listen 127.0.0.1:{port}; proxy_pass {server}; proxy_protocol on; }}
             }}"
        )
    });
    Proxy(program)
}

/// Fails unless the log has a connection of a client, and no refused header.
#[track_caller]
fn has_opened(ran: RunOutput, client: SocketAddr) -> RunOutput {
    ran.says(&format!("opened peer={client} proxy="))
        .says("refused_proxy_header=0")
}

#[track_caller]
fn stop(server: Running) -> RunOutput {
    server.signal(Signal::TERM);
    server.wait().code(0)
}

#[test]
#[ignore = "peer: haproxy"]
fn haproxy_announces_clients_with_each_version() {
    for options in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    ] {
        let folder = Folder::new();
        let server = Server::start(&REQUIRE);
        let proxy = haproxy(&folder, "", &format!("{} {options}", server.address()));
        let client = proxy.ask();
        has_opened(server.stop(), client);
    }
}

#[test]
#[ignore = "peer: haproxy"]
fn haproxy_health_checks_are_served() {
    for options in ["send-proxy", "send-proxy-v2"] {
        let folder = Folder::new();
        let arguments = ["serve", "127.0.0.1:0", "--log-file", "log"];
        let server = Server::of(folder.myapp([&arguments[..], &REQUIRE].concat()), 1);
        let check = "check check-send-proxy inter 50ms";
        let options = format!("{} {options} {check}", server.address());
        let _proxy = haproxy(&folder, "", &options);
        let log = || String::from_utf8(folder.read("log")).unwrap();
        until(|| log().matches(" opened peer=127.0.0.1:").count() >= 5);
        server.stop();
        assert!(log().contains("refused_proxy_header=0"), "{}", log());
    }
}

#[test]
#[ignore = "peer: haproxy"]
fn haproxy_forwards_tls_behind_its_header() {
    for options in ["send-proxy", "send-proxy-v2"] {
        let folder = Folder::new();
        let server = tls::Server::start(&REQUIRE);
        let proxy = haproxy(&folder, "", &format!("{} {options}", server.address));
        let clients = [&TLS12, &TLS13]
            .map(|version| proxy.ask_over_tls(server.authority.client(version, None)));
        let mut ran = stop(server.running);
        for client in clients {
            ran = has_opened(ran, client);
        }
    }
}

#[test]
#[ignore = "peer: haproxy"]
fn haproxy_that_ends_tls_announces_clients() {
    let folder = Folder::new();
    let authority = tls::Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let pem = folder.write("both.pem", certificate + &key);
    let ca = folder.write("ca.pem", &authority.pem);
    let bind = format!(
        "ssl crt {} verify required ca-file {}",
        pem.display(),
        ca.display()
    );
    let server = Server::start(&REQUIRE);
    let options = "send-proxy-v2-ssl-cn proxy-v2-options crc32c,cert-sig,cert-key,authority";
    let proxy = haproxy(&folder, &bind, &format!("{} {options}", server.address()));
    let identity = authority.issue("client");
    let client = proxy.ask_over_tls(authority.client(&TLS13, Some(&identity)));
    has_opened(server.stop(), client);
}

#[test]
#[ignore = "peer: haproxy"]
fn haproxy_works_over_unix_sockets() {
    for options in ["send-proxy", "send-proxy-v2"] {
        let folder = Folder::new();
        let path = folder.path("back");
        let arguments = ["serve", "unix:back"];
        let mut server = folder.myapp([&arguments[..], &REQUIRE].concat()).start();
        server.line();
        let proxy = haproxy(&folder, "", &format!("unix@{} {options}", path.display()));
        let client = proxy.ask();
        // A client on a Unix socket has no address: the proxy's process counts.
        let mut local = UnixStream::connect(folder.path("front")).unwrap();
        local.write_all(b"hello\n").unwrap();
        let mut answer = [0; 6];
        local.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello\n", "{options}");
        has_opened(stop(server), client).says("opened peer=unix:pid=");
    }
}

#[test]
#[ignore = "peer: nginx"]
fn nginx_announces_clients_over_tcp_and_tls() {
    let folder = Folder::new();
    let server = Server::start(&REQUIRE);
    let proxy = nginx(&folder, &server.address().to_string());
    let client = proxy.ask();
    has_opened(server.stop(), client);

    let folder = Folder::new();
    let server = tls::Server::start(&REQUIRE);
    let proxy = nginx(&folder, &server.address.to_string());
    let client = proxy.ask_over_tls(server.authority.client(&TLS13, None));
    has_opened(stop(server.running), client);
}
