//! The transport through surf's API, against raw servers that log each byte.

mod connections;
mod expect;
mod peers;
mod requests;
mod responses;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_lite::io::Cursor;
use myapp::download::http::{ClientConfig, HttpError, ProxySetting, Transport, surf};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use smol::block_on;
use surf::Body;

use crate::harness::Peer;

/// Longer than any wait of a client that does not hang.
const LONG: Duration = Duration::from_secs(20);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Header fields that the transport adds, before those of a request.
const DEFAULTS: &str = concat!(
    "User-Agent: myapp/",
    env!("CARGO_PKG_VERSION"),
    "\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
);

fn config() -> ClientConfig {
    ClientConfig {
        connect_timeout: LONG,
        idle_timeout: LONG,
        ..ClientConfig::default()
    }
}

fn client() -> surf::Client {
    client_with(config())
}

fn client_with(config: ClientConfig) -> surf::Client {
    surf::Client::with_http_client(Transport::new(config).unwrap())
}

/// Sends a request and reads the body of its response.
fn fetch(request: surf::RequestBuilder) -> Result<(u16, String), HttpError> {
    block_on(async {
        let mut response = request.await?;
        let body = response.body_string().await?;
        Ok((response.status().into(), body))
    })
    .map_err(|error: surf::Error| HttpError::from_surf(error).unwrap())
}

/// Returns a body of unknown length.
fn unsized_body(bytes: &[u8]) -> Body {
    Body::from_reader(Cursor::new(bytes.to_vec()), None)
}

/// Request in wire format.
#[derive(Clone, Debug, PartialEq)]
struct Received {
    /// Number of the connection, from 0.
    connection: usize,
    head: String,
    body: Vec<u8>,
}

impl Received {
    fn has_field(&self, field: &str) -> bool {
        self.head.lines().any(|line| line == field)
    }
}

/// Connection, plain or inside TLS.
trait ReadWrite: Read + Write {}

impl<S: Read + Write> ReadWrite for S {}

/// Connection of a client, seen from the server.
struct Conversation {
    number: usize,
    tcp: TcpStream,
    stream: BufReader<Box<dyn ReadWrite>>,
    log: Arc<Mutex<Vec<Received>>>,
}

impl Conversation {
    /// Reads a head and logs it. The end of the stream is an error.
    fn head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.log.lock().unwrap().push(Received {
            connection: self.number,
            head: head.clone(),
            body: Vec::new(),
        });
        Ok(head)
    }

    /// Reads the body that belongs to a head and adds its bytes, as they are, to the log.
    fn body(&mut self, head: &str) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let head = head.to_ascii_lowercase();
        if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            while !body.ends_with(b"\r\n0\r\n\r\n") && body != b"0\r\n\r\n" {
                self.read_chunk(&mut body)?;
            }
        } else if let Some((_, rest)) = head.split_once("\r\ncontent-length: ") {
            let length = rest.split("\r\n").next().unwrap().parse().unwrap();
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        }
        self.log.lock().unwrap().last_mut().unwrap().body = body.clone();
        Ok(body)
    }

    fn read_chunk(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size");
        body.extend(line.bytes());
        let start = body.len();
        body.resize(start + size + 2, 0);
        self.stream.read_exact(&mut body[start..])
    }

    fn request(&mut self) -> io::Result<()> {
        let head = self.head()?;
        self.body(&head).map(drop)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// Reads what the client sends until it closes the connection.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }
}

/// Server that logs requests.
struct RawServer {
    peer: Peer,
    log: Arc<Mutex<Vec<Received>>>,
}

impl RawServer {
    /// Handles each connection on its own thread; the connection is closed at the end.
    fn start(handle: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start_with(None, handle)
    }

    /// Starts a raw server over TLS, like [`RawServer::start`].
    fn start_tls(
        config: Arc<ServerConfig>,
        handle: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(config), handle)
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        handle: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let log = Arc::new(Mutex::default());
        let connections = AtomicUsize::new(0);
        let shared = Arc::clone(&log);
        let peer = Peer::start(move |stream| {
            let tcp = stream.try_clone()?;
            let stream: Box<dyn ReadWrite> = match &tls {
                None => Box::new(stream.try_clone()?),
                Some(config) => {
                    let session = ServerConnection::new(config.clone()).unwrap();
                    Box::new(StreamOwned::new(session, stream.try_clone()?))
                }
            };
            handle(&mut Conversation {
                number: connections.fetch_add(1, SeqCst),
                tcp,
                stream: BufReader::new(stream),
                log: Arc::clone(&shared),
            })
        });
        Self { peer, log }
    }

    /// Sends one response per request, on every connection from the first one.
    fn answering<B: AsRef<[u8]> + Send + Sync + 'static>(
        responses: impl IntoIterator<Item = B>,
    ) -> Self {
        let responses: Vec<_> = responses.into_iter().collect();
        Self::start(move |conversation| {
            for response in &responses {
                conversation.request()?;
                conversation.send(response)?;
            }
            Ok(())
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.peer.address())
    }

    fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the connection number of each request.
    fn connections(&self) -> Vec<usize> {
        self.received()
            .iter()
            .map(|request| request.connection)
            .collect()
    }
}
