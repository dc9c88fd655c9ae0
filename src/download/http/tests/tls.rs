//! TLS tests against a rustls server with generated certificates.

use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use super::*;
use crate::net::tls::{Fingerprint, Identity, TlsConfig, TlsError, TlsSetupError, Trust};

/// A certificate authority, and the file that says to trust it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With equal names only the signatures would differ.
        params
            .distinguished_name
            .push(DnType::CommonName, format!("CA {}", fastrand::u64(..)));
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn issue(&self, params: &CertificateParams) -> Arc<ServerConfig> {
        self.configure(
            params,
            rustls::ALL_VERSIONS,
            WebPkiClientVerifier::no_client_auth(),
        )
        .1
    }

    /// Also gives the certificate's fingerprint.
    fn configure(
        &self,
        params: &CertificateParams,
        versions: &[&'static SupportedProtocolVersion],
        clients: Arc<dyn ClientCertVerifier>,
    ) -> (Fingerprint, Arc<ServerConfig>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key);
        (
            Fingerprint::of(certificate.der()),
            Arc::new(config.unwrap()),
        )
    }

    /// Asks clients for a certificate of this authority.
    fn asks_clients(&self) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.file()).unwrap())
            .unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .unwrap()
    }

    /// A client's certificate and its key, in one file.
    fn identity(&self, file: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = for_names(&["client"])
            .signed_by(&key, &self.issuer)
            .unwrap();
        let path = self.folder.path().join(file);
        std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        Identity {
            certificates: path.clone(),
            key: path,
        }
    }

    fn client(&self) -> Client {
        trusting(self.file())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn trusting(roots: PathBuf) -> Client {
    client_with(TlsConfig {
        trust: Trust::RootCertificates(roots),
        ..TlsConfig::default()
    })
}

fn client_with(tls: TlsConfig) -> Client {
    Client::new(ClientConfig { tls, ..config() }).unwrap()
}

fn for_names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(
        names
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>(),
    )
    .unwrap()
}

fn url(peer: &Peer) -> Url {
    format!("https://localhost:{}/x", peer.address().port())
        .parse()
        .unwrap()
}

/// A server that plays a script on each connection, and with or without a word at its end.
fn serve(config: Arc<ServerConfig>, answers: &'static [&'static str], says_end: bool) -> Peer {
    Peer::serve(move |_, stream, asked| {
        let mut tls = accept(stream, &config);
        // Fails where the client refuses the certificate.
        let _ = tls.conn.complete_io(&mut tls.sock);
        if tls.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
            asked("resumed".into());
        }
        Script::new(answers, End::Close).play(&mut tls, &mut *asked);
        if says_end {
            tls.conn.send_close_notify();
            // The client may be gone.
            let _ = tls.conn.complete_io(&mut tls.sock);
        }
    })
}

fn accept(
    stream: &TcpStream,
    config: &Arc<ServerConfig>,
) -> StreamOwned<ServerConnection, TcpStream> {
    let connection = ServerConnection::new(config.clone()).unwrap();
    StreamOwned::new(connection, stream.try_clone().unwrap())
}

#[track_caller]
fn refused(client: &Client, peer: &Peer) -> TlsError {
    let error = fetch(client, &url(peer)).unwrap_err();
    assert!(!error.is_transient());
    let port = peer.address().port();
    assert_eq!(
        error.to_string(),
        format!("TLS handshake with localhost:{port}")
    );
    assert!(peer.requests().is_empty());
    let HttpError::Tls { source, .. } = error else {
        panic!("{error:?}")
    };
    source
}

#[test]
fn trusted_certificate_is_accepted_and_reused() {
    let authority = Authority::new();
    let peer = serve(
        authority.issue(&for_names(&["localhost", "127.0.0.1"])),
        &[OK, OK],
        true,
    );
    let client = authority.client();
    for _ in 0..2 {
        assert_eq!(fetch(&client, &url(&peer)).unwrap(), (200, b"ok".to_vec()));
    }
    assert_eq!(peer.connections(), [0, 0]);
    let by_address = format!("https://{}/", peer.address()).parse().unwrap();
    assert_eq!(fetch(&client, &by_address).unwrap().1, b"ok");
}

#[test]
fn tls_session_is_resumed() {
    let authority = Authority::new();
    let closing = &["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"];
    let peer = serve(authority.issue(&for_names(&["localhost"])), closing, true);
    let client = authority.client();
    fetch(&client, &url(&peer)).unwrap();
    assert!(!peer.requests().contains(&"resumed".to_owned()));
    fetch(&client, &url(&peer)).unwrap();
    fetch(&client, &url(&peer)).unwrap();
    assert!(
        peer.requests().contains(&"resumed".to_owned()),
        "{:?}",
        peer.requests()
    );
}

#[test]
fn unknown_issuer_is_rejected() {
    let peer = serve(
        Authority::new().issue(&for_names(&["localhost"])),
        &[OK],
        true,
    );
    let error = refused(&Authority::new().client(), &peer);
    assert_eq!(error.to_string(), "unknown certificate issuer");
}

#[test]
fn name_mismatch_lists_certificate_names() {
    let authority = Authority::new();
    let names = [
        "example.org",
        "*.example.org",
        "127.0.0.1",
        "a.b",
        "c.d",
        "e.f",
        "g.h",
    ];
    let peer = serve(authority.issue(&for_names(&names)), &[OK], true);
    let error = refused(&authority.client(), &peer);
    assert_eq!(
        error.to_string(),
        "certificate is not valid for this name, only for \
         example.org, *.example.org, 127.0.0.1, a.b, c.d, 2 more"
    );
}

#[test]
fn certificate_outside_validity_is_rejected() {
    let authority = Authority::new();
    for (from, to, text) in [
        (2001, 2002, "certificate has expired"),
        (3001, 3002, "certificate is not valid yet"),
    ] {
        let mut params = for_names(&["localhost"]);
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let peer = serve(authority.issue(&params), &[OK], true);
        assert_eq!(refused(&authority.client(), &peer).to_string(), text);
    }
}

#[test]
fn close_delimited_body_needs_close_notify() {
    let authority = Authority::new();
    let config = authority.issue(&for_names(&["localhost"]));
    let open_ended = &["HTTP/1.1 200 OK\r\n\r\nhello"];
    let good = serve(config.clone(), open_ended, true);
    assert_eq!(fetch(&authority.client(), &url(&good)).unwrap().1, b"hello");

    let cut = serve(config, open_ended, false);
    let error = fetch(&authority.client(), &url(&cut)).unwrap_err();
    assert!(
        matches!(
            error,
            HttpError::IncompleteBody {
                received: 5,
                expected: None,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn server_without_tls_is_reported() {
    let peer = Peer::serve(|_, stream, _| {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        // Not closed before the client has read it.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = refused(&Authority::new().client(), &peer);
    assert_eq!(error.to_string(), "server does not speak TLS");
}

#[test]
fn broken_handshake_is_transient() {
    let peer = Peer::start([]);
    let error = fetch(&Authority::new().client(), &url(&peer)).unwrap_err();
    assert!(
        matches!(
            error,
            HttpError::Tls {
                source: TlsError::Io { .. },
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_transient());
}

#[test]
fn stalled_handshake_times_out() {
    let peer = Peer::start([Script::new([""], End::Hold)]);
    let connect_timeout = Duration::from_millis(200);
    let roots = Authority::new();
    let tls = TlsConfig {
        trust: Trust::RootCertificates(roots.file()),
        ..TlsConfig::default()
    };
    let config = ClientConfig {
        connect_timeout,
        tls,
        ..config()
    };
    let error = fetch(&Client::new(config).unwrap(), &url(&peer)).unwrap_err();
    let port = peer.address().port();
    let text = format!("connect to localhost:{port}: timed out after 200ms");
    assert_eq!(error.to_string(), text);
}

#[test]
fn unusable_root_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let url = "https://localhost:1/".parse().unwrap();
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, cause) in [
        (None, "No such file or directory (os error 2)"),
        (Some(""), "no certificate in it"),
        (Some("hello"), "no certificate in it"),
        (Some("-----BEGIN CERTIFICATE-----\n"), "not PEM"),
        (Some(bad), "a certificate in it cannot be parsed"),
    ] {
        let path = folder.path().join("roots.pem");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = fetch(&trusting(path.clone()), &url).unwrap_err();
        let HttpError::TlsSetup(TlsSetupError::Read { source, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(source.to_string(), cause);
        assert_eq!(
            error.to_string(),
            format!("read certificates from {}", path.display())
        );
    }
}

#[test]
fn pinned_certificate_is_the_only_one_accepted() {
    let mut params = for_names(&["elsewhere"]);
    params.not_after = date_time_ymd(2002, 1, 1);
    for version in [&TLS12, &TLS13] {
        let nobody = WebPkiClientVerifier::no_client_auth();
        let (pin, config) = Authority::new().configure(&params, &[version], nobody);
        let peer = serve(config, &[OK], true);
        let pinning = |pin| {
            client_with(TlsConfig {
                trust: Trust::PinnedSha256(pin),
                ..TlsConfig::default()
            })
        };
        let error = refused(&pinning(Fingerprint::of(b"another")), &peer);
        assert_eq!(
            error.to_string(),
            format!("certificate is not the pinned one, its SHA-256 is {pin}")
        );
        assert_eq!(fetch(&pinning(pin), &url(&peer)).unwrap().1, b"ok");
    }
}

#[test]
fn accept_any_trusts_every_certificate() {
    let mut params = for_names(&["elsewhere"]);
    params.not_after = date_time_ymd(2002, 1, 1);
    let peer = serve(Authority::new().issue(&params), &[OK], true);
    let client = client_with(TlsConfig {
        trust: Trust::DangerouslyAcceptAny,
        ..TlsConfig::default()
    });
    assert_eq!(fetch(&client, &url(&peer)).unwrap().1, b"ok");
}

#[test]
fn client_certificate_is_sent_on_request() {
    let authority = Authority::new();
    let stranger = Authority::new();
    for version in [&TLS12, &TLS13] {
        let (_, config) = authority.configure(
            &for_names(&["localhost"]),
            &[version],
            authority.asks_clients(),
        );
        let peer = serve(config, &[OK], true);
        let with = |identity| {
            client_with(TlsConfig {
                trust: Trust::RootCertificates(authority.file()),
                identity,
            })
        };
        let known = with(Some(authority.identity("client.pem")));
        assert_eq!(fetch(&known, &url(&peer)).unwrap().1, b"ok");
        for identity in [None, Some(stranger.identity("other.pem"))] {
            let error = fetch(&with(identity), &url(&peer)).unwrap_err();
            assert!(!matches!(error, HttpError::TlsSetup(_)), "{error:?}");
        }
    }
}

#[test]
fn missing_client_certificate_is_reported() {
    let authority = Authority::new();
    let config = authority
        .configure(
            &for_names(&["localhost"]),
            &[&TLS13],
            authority.asks_clients(),
        )
        .1;
    // What the client has sent is read before the connection ends: else its end is a reset, and
    // the alert may be lost.
    let peer = Peer::serve(move |_, stream, _| {
        let mut tls = accept(stream, &config);
        let _ = tls.conn.complete_io(&mut tls.sock);
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let error = fetch(&authority.client(), &url(&peer)).unwrap_err();
    assert!(
        matches!(
            &error,
            HttpError::Tls {
                source: TlsError::CertificateRequired,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.is_transient());
}

#[test]
fn unusable_client_certificate_is_reported() {
    let authority = Authority::new();
    let Identity {
        certificates: good, ..
    } = authority.identity("a.pem");
    let Identity { key: other, .. } = authority.identity("b.pem");
    let only = authority.file();
    let missing = authority.folder.path().join("missing");
    for (certificates, key, wanted) in [
        (&missing, &good, "read certificates from "),
        (&good, &missing, "read private key from "),
        (&good, &only, "read private key from "),
        (&good, &other, "use certificate "),
    ] {
        let identity = Some(Identity {
            certificates: certificates.clone(),
            key: key.clone(),
        });
        let client = client_with(TlsConfig {
            trust: Trust::DangerouslyAcceptAny,
            identity,
        });
        let error = fetch(&client, &"https://localhost:1/".parse().unwrap()).unwrap_err();
        assert!(matches!(&error, HttpError::TlsSetup(_)), "{error:?}");
        assert!(error.to_string().starts_with(wanted), "{error}");
    }
}
