//! TLS: handshake, client certificates, alerts and close.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use myapp::net::tls::Fingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::clients::{peer, talks};
use super::random_bytes;
use crate::harness::serve::ends;
use crate::harness::{Folder, Program, Running, until};

pub(super) type Client = StreamOwned<ClientConnection, TcpStream>;

/// A certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With equal names only the signatures would differ.
        params
            .distinguished_name
            .push(DnType::CommonName, format!("CA {}", fastrand::u64(..)));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Issues a certificate and its key.
    pub(super) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Issues a certificate with this common name, and its key.
    pub(super) fn issue_to(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Returns a client that trusts this authority.
    pub(super) fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<&(String, String)>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let Some((certificate, key)) = identity else {
            return Arc::new(builder.with_no_client_auth());
        };
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        Arc::new(
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap(),
        )
    }
}

/// A TLS server, its authority and its files.
pub(super) struct Server {
    pub(super) running: Running,
    pub(super) address: SocketAddr,
    pub(super) authority: Authority,
    folder: Folder,
}

impl Server {
    #[track_caller]
    pub(super) fn start(arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let authority = Authority::new();
        let (certificate, key) = authority.issue("localhost");
        folder.write("cert.pem", certificate);
        folder.write("key.pem", key);
        folder.write("ca.pem", &authority.pem);
        let files = ["serve", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
        let program = folder.myapp([&files, arguments, &["tls://127.0.0.1:0"]].concat());
        let (running, address) = begin(program);
        Self {
            running,
            address,
            authority,
            folder,
        }
    }

    pub(super) fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    pub(super) fn connect(&self, config: Arc<ClientConfig>) -> Client {
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(config, name).unwrap(), self.plain())
    }

    pub(super) fn client(&self) -> Client {
        self.connect(self.authority.client(&TLS13, None))
    }

    /// Stops the server and returns its TLS counters.
    #[track_caller]
    fn stop(self) -> String {
        self.running.signal(Signal::TERM);
        let text = self.running.wait().code(0).text();
        let summary: serde_json::Value =
            serde_json::from_str(text.lines().last().unwrap()).unwrap();
        summary["tls"].to_string()
    }
}

#[track_caller]
fn begin(program: Program) -> (Running, SocketAddr) {
    let mut running = program.start();
    let line = running.line();
    let address = line
        .split("tls://")
        .nth(1)
        .map(|rest| rest.trim_end_matches("\"}"));
    let address = address.and_then(|address| address.parse().ok());
    (
        running,
        address.unwrap_or_else(|| panic!("no listening line: {line:?}")),
    )
}

/// Sends a message and reads a reply of the same length.
#[track_caller]
pub(super) fn ask(client: &mut Client, message: &[u8]) -> Vec<u8> {
    client.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).unwrap();
    answer
}

/// Sends `close_notify`, and reads up to that of the server.
#[track_caller]
pub(super) fn finish(client: &mut Client) -> Vec<u8> {
    client.conn.send_close_notify();
    let mut rest = Vec::new();
    // An end without close_notify is an error.
    client
        .read_to_end(&mut rest)
        .expect("close_notify of the server");
    rest
}

const NO_FAILURE: &str = concat!(
    r#"{"client_cert_rejected":0,"handshake_errors":0,"handshake_timeouts":0,"#,
    r#""missing_close_notify":0,"not_tls":0}"#
);

#[test]
fn close_notify_returns_all_input_then_ends() {
    let server = Server::start(&["--json", "-q"]);
    for version in [&TLS12, &TLS13] {
        for length in [0, 1, 5, 100_000] {
            let mut client = server.connect(server.authority.client(version, None));
            let bytes = random_bytes(length);
            // Without a handshake there is no close_notify.
            client.conn.complete_io(&mut client.sock).unwrap();
            client.write_all(&bytes).unwrap();
            assert!(finish(&mut client) == bytes, "{length} bytes differ");
            ends(&client.sock);
        }
    }
    assert_eq!(server.stop(), NO_FAILURE);
}

#[test]
fn bulk_is_echoed_in_bounded_memory() {
    let server = Server::start(&["--json", "-q", "--mode", "chunk"]);
    let mut client = server.client();
    let piece = random_bytes(64 << 10);
    ask(&mut client, &piece);
    let before = memory(&server.running);
    for round in 0..1024 {
        assert!(ask(&mut client, &piece) == piece, "piece {round} differs");
    }
    let grown = memory(&server.running).saturating_sub(before);
    assert!(grown < 1 << 20, "grown by {grown} bytes");
    finish(&mut client);
}

/// Returns the anonymous memory of the program in bytes.
fn memory(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[test]
fn slow_tls_reader_is_not_read() {
    let server = Server::start(&["--json", "-q", "--mode", "chunk"]);
    ask(&mut server.client(), b"warm");
    let before = memory(&server.running);
    let mut slow = server.client();
    slow.sock
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let piece = random_bytes(1 << 20);
    let taken = (0..64)
        .take_while(|_| slow.write_all(&piece).is_ok())
        .count();
    assert!(taken < 64, "the server took all, though nothing was read");
    let grown = memory(&server.running).saturating_sub(before);
    assert!(grown < 1 << 20, "grown by {grown} bytes");
}

#[test]
fn plaintext_client_gets_an_alert() {
    let server = Server::start(&["--json", "-q"]);
    let mut good = server.client();
    ask(&mut good, b"before\n");
    let mut plain = server.plain();
    plain
        .write_all(&[b"GET / HTTP/1.1\r\n".as_slice(), &random_bytes(100_000)].concat())
        .unwrap();
    plain.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer.first(), Some(&21), "an alert (RFC 8446 section 5.1)");
    ask(&mut good, b"after\n");
    finish(&mut good);
    assert!(server.stop().contains(r#""not_tls":1"#));
}

#[test]
fn client_certificate_is_required_and_verified() {
    let server = Server::start(&["--json", "-q", "--tls-client-ca", "ca.pem"]);
    let right = server.authority.issue("client");
    let wrong = Authority::new().issue("client");
    for version in [&TLS12, &TLS13] {
        let config = |identity| server.authority.client(version, identity);
        let mut client = server.connect(config(Some(&right)));
        ask(&mut client, b"in\n");
        for identity in [None, Some(&wrong)] {
            let mut client = server.connect(config(identity));
            let error = client
                .write_all(b"x\n")
                .and_then(|()| client.read_exact(&mut [0; 2]));
            // The alert, not a reset.
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidData);
        }
        ask(&mut client, b"still in\n");
        finish(&mut client);
    }
    assert!(server.stop().contains(r#""client_cert_rejected":4"#));
}

#[test]
fn handshake_timeout_releases_the_slot() {
    let server = Server::start(&["--json", "-q", "--max-connections", "1"]);
    let start = Instant::now();
    let silent = server.plain();
    let mut next = server.client();
    next.sock
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(ask(&mut next, b"at last\n"), b"at last\n");
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(9_900), "{waited:?}");
    assert!(waited < Duration::from_secs(15), "{waited:?}");
    ends(&silent);
    finish(&mut next);
    assert!(server.stop().contains(r#""handshake_timeouts":1"#));
}

#[test]
fn pending_handshake_does_not_block_shutdown() {
    let server = Server::start(&["--json", "-q"]);
    let _silent = server.plain();
    ask(&mut server.client(), b"behind it\n");
    let start = Instant::now();
    server.stop();
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn close_during_handshake_is_immediate() {
    // RFC 8446 section 6.1
    const CLOSE_NOTIFY: &[u8] = &[21, 3, 3, 0, 2, 1, 0];
    let server = Server::start(&["--json", "-q"]);
    let start = Instant::now();
    for version in [&TLS12, &TLS13] {
        let mut hello = Vec::new();
        let mut client = server.connect(server.authority.client(version, None));
        client.conn.write_tls(&mut hello).unwrap();
        drop(client);
        for (bytes, shuts_down) in [
            ([].into(), true),
            (hello[..50].to_vec(), true),
            (hello.clone(), true),
            (CLOSE_NOTIFY.into(), false),
            ([&hello, CLOSE_NOTIFY].concat(), false),
        ] {
            let mut client = server.plain();
            client.write_all(&bytes).unwrap();
            if shuts_down {
                client.shutdown(Shutdown::Write).unwrap();
            }
            client
                .read_to_end(&mut Vec::new())
                .expect("an end without a reset");
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    let tls = server.stop();
    assert!(
        tls.contains(r#""handshake_errors":12,"handshake_timeouts":0"#),
        "{tls}"
    );
}

#[test]
fn missing_close_notify_is_counted() {
    let server = Server::start(&["--json", "-q"]);
    let mut client = server.client();
    client.write_all(b"whole\nbegun").unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"whole\n");
    let error = client.read_exact(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(server.stop().contains(r#""missing_close_notify":1"#));
}

#[test]
fn hangup_reloads_certificate_and_keeps_connections() {
    let arguments = ["--log-file", "log", "--tls-client-ca", "ca.pem"];
    let server = Server::start(&arguments);
    let logged = |text: &str| {
        let log = server.folder.read("log");
        String::from_utf8_lossy(&log).contains(text)
    };
    server.folder.write("key.pem", "no key");
    server.running.signal(Signal::HUP);
    until(|| logged("cannot reload the TLS files, keeping the current ones"));
    let identity = server.authority.issue("client");
    let mut open = server.connect(server.authority.client(&TLS13, Some(&identity)));
    assert_eq!(ask(&mut open, b"old\n"), b"old\n");

    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    server.folder.write("cert.pem", certificate);
    server.folder.write("key.pem", key);
    server.folder.write("ca.pem", &authority.pem);
    server.running.signal(Signal::HUP);
    until(|| logged("certificate_changed=true client_ca_changed=true"));
    let identity = authority.issue("client");
    let mut client = server.connect(authority.client(&TLS13, Some(&identity)));
    assert_eq!(ask(&mut client, b"new\n"), b"new\n");
    assert_eq!(ask(&mut open, b"open\n"), b"open\n");
}

#[test]
fn server_sends_close_notify() {
    let server = Server::start(&["--json", "-q", "--idle-timeout", "200ms"]);
    let mut client = server.client();
    ask(&mut client, b"x\n");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "idle");
    let mut client = server.client();
    ask(&mut client, b"x\n");
    server.running.signal(Signal::TERM);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "drained");
}

#[test]
fn self_signed_fingerprint_is_printed_when_quiet() {
    let folder = Folder::new();
    let program = folder.myapp(["serve", "-q", "--tls-self-signed", "tls://127.0.0.1:0"]);
    let (running, address) = begin(program);
    let config = Authority::new().client(&TLS13, None);
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let error = connection.complete_io(&mut stream).unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    let echo = |pin: &str| {
        let address = format!("https://{address}/");
        folder
            .myapp(["download", "--retry", "0", "--pinned-sha256", pin, &address])
            .run()
    };
    // The HTTP request fails, but the handshake shows the certificate.
    let told = echo(&"0".repeat(64)).code(5).stderr;
    let found = told.trim_end().rsplit(' ').next().unwrap();
    assert!(found.parse::<Fingerprint>().is_ok(), "{told}");
    running.signal(Signal::TERM);
    running
        .wait()
        .code(0)
        .says(&format!("certificate SHA-256: {found}\n"));
}

#[test]
fn certificate_without_address_is_a_usage_error() {
    let folder = Folder::new();
    let pair = ["--tls-cert", "c", "--tls-key", "k"];
    let hint = "hint: use --tls-cert FILE --tls-key FILE, or --tls-self-signed";
    for (arguments, says) in [
        (&["tls://0"] as &[_], hint),
        (&["--tls-self-signed", "0"], "without a tls:// address"),
        (
            &[pair.as_slice(), &["0"]].concat(),
            "without a tls:// address",
        ),
        (&["--tls-cert", "c", "tls://0"], "--tls-key <FILE>"),
        (&["--tls-key", "k", "tls://0"], "--tls-cert <FILE>"),
        (&["--tls-client-ca", "ca", "tls://0"], hint),
        (
            &[pair.as_slice(), &["--tls-self-signed", "tls://0"]].concat(),
            "cannot be used with",
        ),
    ] {
        folder
            .myapp([&["serve"], arguments].concat())
            .run()
            .code(2)
            .prints("")
            .says(says);
    }
}

#[test]
fn unusable_tls_files_are_named_with_cause() {
    let folder = Folder::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    folder.write("cert", certificate);
    folder.write("key", key);
    folder.write("other", authority.issue("localhost").1);
    for (cert, key, ca, code, says) in [
        (
            "none",
            "key",
            "cert",
            3,
            "read certificates from none: No such file",
        ),
        (
            "key",
            "key",
            "cert",
            3,
            "read certificates from key: no certificate in it",
        ),
        (
            "cert",
            "cert",
            "cert",
            3,
            "read private key from cert: no private key in it",
        ),
        (
            "cert",
            "key",
            "key",
            3,
            "read certificates from key: no certificate in it",
        ),
        (
            "cert",
            "other",
            "cert",
            5,
            "use certificate cert with its private key: ",
        ),
    ] {
        let line = [
            "serve",
            "--tls-cert",
            cert,
            "--tls-key",
            key,
            "--tls-client-ca",
            ca,
            "tls://0",
        ];
        folder.myapp(line).run().code(code).prints("").says(says);
    }
}

#[test]
#[ignore = "peer: openssl"]
fn openssl_client_works_with_each_version() {
    let server = Server::start(&["--json", "-q", "--tls-client-ca", "ca.pem"]);
    let (certificate, key) = server.authority.issue("client");
    let certificate = server.folder.write("client.pem", certificate + &key);
    let certificate = certificate.to_str().unwrap();
    let address = server.address.to_string();
    let ca = server.folder.path("ca.pem");
    let fixed = [
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-CAfile",
        ca.to_str().unwrap(),
    ];
    let lines = [
        b"Q\none\n\xff\xfe\nthree\n".repeat(100),
        random_bytes(10_000),
        b"\n".to_vec(),
    ]
    .concat();
    for version in ["-tls1_2", "-tls1_3"] {
        let common = [&fixed[..], &["-connect", &address, version]].concat();
        let own = [&common[..], &["-cert", certificate, "-key", certificate]].concat();
        talks("openssl", &own, &lines);
        assert_eq!(
            peer("openssl", &common, b"x\n"),
            b"",
            "{version} without a certificate"
        );
    }
}

#[test]
#[ignore = "peer: ncat"]
fn ncat_works_over_tls() {
    let server = Server::start(&["--json", "-q"]);
    let port = server.address.port().to_string();
    for length in [5, 100_000] {
        // ncat ends without close_notify, so an incomplete line would get no reply.
        let lines = [random_bytes(length), vec![b'\n']].concat();
        let answer = peer("ncat", &["--ssl", "127.0.0.1", &port], &lines);
        assert!(answer == lines, "{length} bytes differ");
    }
}

#[test]
#[ignore = "peer: socat"]
fn socat_works_over_tls() {
    let server = Server::start(&["--json", "-q"]);
    let ca = server.folder.path("ca.pem");
    let port = server.address.port();
    let ca = ca.display();
    for version in ["TLS1.2", "TLS1.3"] {
        let versions =
            format!("openssl-min-proto-version={version},openssl-max-proto-version={version}");
        let address =
            format!("OPENSSL:127.0.0.1:{port},cafile={ca},commonname=localhost,{versions}");
        for length in [0, 5, 100_000, 4 << 20] {
            let answer = peer("socat", &["-t", "10", "-", &address], &random_bytes(length));
            assert!(
                answer == random_bytes(length),
                "{length} bytes with {version} differ"
            );
        }
    }
    assert_eq!(server.stop(), NO_FAILURE);
}
