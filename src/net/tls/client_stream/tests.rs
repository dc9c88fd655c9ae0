use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::pin::pin;

use fastrand::Rng;
use futures_lite::future::block_on;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::net::address::Host;
use crate::net::tls::{TlsClient, TlsConfig, Trust};

/// Transport to a TLS server in memory. Each call transfers a random number of bytes, or none yet.
struct Server {
    random: Rng,
    session: ServerConnection,
    /// Records that the client has not received yet.
    records: VecDeque<u8>,
    /// Plaintext that the client has sent.
    plaintext: Vec<u8>,
    error: Option<rustls::Error>,
}

impl Server {
    fn new(random: Rng, version: &'static SupportedProtocolVersion, chain_len: usize) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".into()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone(); chain_len], key.into())
            .unwrap();
        Self {
            random,
            session: ServerConnection::new(config.into()).unwrap(),
            records: VecDeque::new(),
            plaintext: Vec::new(),
            error: None,
        }
    }

    /// Sends plaintext.
    fn send(&mut self, bytes: &[u8]) {
        self.session.writer().write_all(bytes).unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.records).unwrap();
        }
    }

    fn is_pending(&mut self, cx: &Context<'_>) -> bool {
        let is_pending = self.random.u8(..4) == 0;
        if is_pending {
            cx.waker().wake_by_ref();
        }
        is_pending
    }
}

impl AsyncRead for Server {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let server = self.get_mut();
        if server.is_pending(cx) {
            return Poll::Pending;
        }
        let max = server.random.usize(1..=into.len());
        Poll::Ready(server.records.read(&mut into[..max]))
    }
}

impl AsyncWrite for Server {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let server = self.get_mut();
        if server.is_pending(cx) {
            return Poll::Pending;
        }
        let count = server.random.usize(1..=bytes.len());
        let count = server.session.read_tls(&mut &bytes[..count]).unwrap();
        if let Err(error) = server.session.process_new_packets() {
            server.error = Some(error);
        }
        // Ends with `WouldBlock`, or with the plaintext.
        let _ = server.session.reader().read_to_end(&mut server.plaintext);
        server.flush();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.get_mut().is_pending(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

async fn connect(server: Server) -> TlsStream<Server> {
    let config = TlsConfig {
        trust: Trust::DangerouslyAcceptAny,
        ..TlsConfig::default()
    };
    let client = TlsClient::load(config, &[]).await.unwrap();
    let host = Host::Name("localhost".into());
    client.connect(&host, server).await.unwrap()
}

fn random_bytes(random: &mut Rng, max_len: usize) -> Vec<u8> {
    let len = random.usize(..=max_len);
    (0..len).map(|_| random.u8(..)).collect()
}

/// Reads up to `limit` bytes as slices.
async fn read_slices(stream: &mut TlsStream<Server>, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = future::poll_fn(|cx| {
        stream.poll_read_with(cx, limit, |slice| bytes.extend_from_slice(slice))
    });
    let count = pin!(read).await?;
    assert_eq!(count, bytes.len());
    assert!(count <= limit, "{count} bytes instead of {limit}");
    Ok(bytes)
}

async fn transfer_at_random(seed: u64, version: &'static SupportedProtocolVersion) {
    let mut random = Rng::with_seed(seed);
    let mut stream = connect(Server::new(random.fork(), version, 1)).await;
    let mut sent = Vec::new();
    let mut received = Vec::new();
    let mut written = Vec::new();
    for _ in 0..random.usize(1..12) {
        let bytes = random_bytes(&mut random, 60_000);
        stream.transport.send(&bytes);
        sent.extend(bytes);
        if version == &TLS13 && random.bool() {
            stream.transport.session.refresh_traffic_keys().unwrap();
        }
        let bytes = random_bytes(&mut random, 100_000);
        stream.write_all(&bytes).await.unwrap();
        written.extend(bytes);
        while received.len() < sent.len() && random.u8(..8) > 0 {
            let limit = random.usize(1..50_000);
            received.extend(read_slices(&mut stream, limit).await.unwrap());
        }
    }
    stream.transport.session.send_close_notify();
    stream.transport.flush();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(received == sent, "seed {seed}: other bytes than sent");
    assert!(stream.is_drained());
    stream.close().await.unwrap();
    let Server {
        plaintext, error, ..
    } = &stream.transport;
    assert_eq!(*error, None, "seed {seed}");
    assert!(*plaintext == written, "seed {seed}: the server got others");
}

#[test]
fn random_transfers_are_exact() {
    for seed in 0..30 {
        block_on(transfer_at_random(seed, &TLS12));
        block_on(transfer_at_random(seed, &TLS13));
    }
}

#[test]
fn long_certificate_chain_is_received() {
    block_on(async {
        let server = Server::new(Rng::with_seed(1), &TLS13, 130);
        let stream = connect(server).await;
        let len = stream.received.len();
        assert!(len > 32 << 10, "a buffer of {len} bytes");
    });
}

#[test]
fn end_without_close_notify_is_an_error() {
    block_on(async {
        let mut stream = connect(Server::new(Rng::with_seed(1), &TLS13, 1)).await;
        stream.transport.send(b"all");
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(bytes, b"all");
    });
}

#[test]
fn damaged_record_is_an_error_after_the_data_before_it() {
    for seed in 0..20 {
        block_on(async {
            let mut stream = connect(Server::new(Rng::with_seed(seed), &TLS13, 1)).await;
            stream.transport.send(b"good");
            stream.transport.send(b"bad");
            *stream.transport.records.back_mut().unwrap() ^= 1;
            let mut bytes = Vec::new();
            let error = stream.read_to_end(&mut bytes).await.unwrap_err();
            assert_eq!(bytes, b"good");
            let error = error.downcast::<rustls::Error>().unwrap();
            assert_eq!(error, rustls::Error::DecryptError, "seed {seed}");
            // The alert that was queued.
            let _ = stream.flush().await;
            let alert = rustls::AlertDescription::BadRecordMac;
            let expected = rustls::Error::AlertReceived(alert);
            assert_eq!(stream.transport.error, Some(expected), "seed {seed}");
            for _ in 0..2 {
                assert!(stream.read_to_end(&mut bytes).await.is_err());
                assert!(stream.write(b"more").await.is_err());
            }
            stream.close().await.unwrap();
            assert_eq!(bytes, b"good");
        });
    }
}
