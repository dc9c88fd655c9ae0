//! HTTP server on plain sockets. An [`Response`] describes the bytes, the framing and the fault of a
//! response; the server records requests and counts connections and bytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tcp_queues::unread_from;
use super::until;

/// Returns pseudorandom bytes, the same for the same seed.
pub fn seeded(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Response of the server.
#[derive(Clone)]
pub struct Response {
    version: &'static str,
    status: u16,
    headers: Vec<String>,
    body: Arc<[u8]>,
    framing: Framing,
    /// Delay before the head.
    delay: Duration,
    fault: Fault,
    /// Bytes after the body.
    surplus: Vec<u8>,
}

/// Body framing.
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    /// Chunks of 1,000 bytes, and a trailer field.
    Chunked,
    /// The body ends with the connection.
    Close,
    /// The status implies that there is no body.
    None,
}

/// Fault of a response. Offsets count the bytes of the encoded body.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// Closes the connection at an offset.
    Truncate(usize),
    /// Sends nothing from an offset on, and keeps the connection open.
    Stall(usize),
    /// Sends pieces of a length, with a pause after each.
    Throttle(usize, Duration),
}

impl Response {
    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self {
            version: "HTTP/1.1",
            status: 200,
            headers: Vec::new(),
            body: body.into().into(),
            framing: Framing::Length,
            delay: Duration::ZERO,
            fault: Fault::None,
            surplus: Vec::new(),
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::body(format!("error page of status {status}"))
        }
    }

    /// Returns a response without a body and without a Content-Length.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            framing: Framing::None,
            ..Self::body("")
        }
    }

    /// Returns a 206 response with the bytes of `whole` from `first` to `end`, exclusive.
    pub fn part(whole: &[u8], first: usize, end: usize) -> Self {
        let range = format!("bytes {first}-{}/{}", end - 1, whole.len());
        Self {
            status: 206,
            ..Self::body(&whole[first..end])
        }
        .header("Content-Range", &range)
    }

    pub fn redirect(status: u16, location: impl AsRef<str>) -> Self {
        Self::status(status).header("Location", location.as_ref())
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}"));
        self
    }

    pub fn chunked(self) -> Self {
        Self {
            framing: Framing::Chunked,
            ..self
        }
    }

    pub fn close_delimited(self) -> Self {
        Self {
            framing: Framing::Close,
            ..self
        }
    }

    pub fn http_1_0(self) -> Self {
        Self {
            version: "HTTP/1.0",
            framing: Framing::Close,
            ..self
        }
    }

    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub fn truncated_at(self, bytes: usize) -> Self {
        Self {
            fault: Fault::Truncate(bytes),
            ..self
        }
    }

    pub fn stalled_at(self, bytes: usize) -> Self {
        Self {
            fault: Fault::Stall(bytes),
            ..self
        }
    }

    pub fn throttled(self, bytes: usize, pause: Duration) -> Self {
        Self {
            fault: Fault::Throttle(bytes, pause),
            ..self
        }
    }

    pub fn surplus(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            surplus: bytes.into(),
            ..self
        }
    }

    fn head(&self) -> String {
        let mut head = format!("{} {} Whatever\r\n", self.version, self.status);
        match self.framing {
            Framing::Length => head += &format!("Content-Length: {}\r\n", self.body.len()),
            Framing::Chunked => head += "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n",
            Framing::None => {}
            Framing::Close => head += "Connection: close\r\n",
        }
        for header in &self.headers {
            head += &format!("{header}\r\n");
        }
        head + "\r\n"
    }

    /// Returns the body in its framing, and the surplus bytes.
    fn encoded_body(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.body.len());
        if self.framing == Framing::Chunked {
            for chunk in self.body.chunks(1000) {
                wire.extend(format!("{:x};ext=1\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\nX-Sum: 1\r\n\r\n");
        } else {
            wire.extend(&self.body[..]);
        }
        wire.extend(&self.surplus);
        wire
    }

    /// Sends the response, and returns whether the connection can be reused. `active` is dropped
    /// before the last write: the next request may arrive before that call returns.
    fn send(&self, stream: &mut Stream, active: ActiveRequest<'_>) -> io::Result<bool> {
        thread::sleep(self.delay);
        let wire = self.encoded_body();
        // Bytes are counted before the client can read them, and after all bytes before them.
        let state = active.0;
        let sends = |count| state.sent.fetch_add(count, SeqCst);
        stream.write_all(self.head().as_bytes())?;
        match self.fault {
            Fault::None => {
                sends(wire.len());
                drop(active);
                stream.write_all(&wire)?;
            }
            Fault::Truncate(at) => {
                sends(at);
                drop(active);
                stream.write_all(&wire[..at])?;
                return Ok(false);
            }
            Fault::Stall(at) => {
                sends(at);
                stream.write_all(&wire[..at])?;
                // Returns when the client closes the connection.
                io::copy(stream, &mut io::sink())?;
            }
            Fault::Throttle(bytes, pause) => {
                let (last, pieces) = wire.split_last().expect("a body that is not empty");
                for piece in pieces.chunks(bytes) {
                    sends(piece.len());
                    stream.write_all(piece)?;
                    thread::sleep(pause);
                }
                sends(1);
                drop(active);
                stream.write_all(&[*last])?;
            }
        }
        Ok(self.framing != Framing::Close)
    }
}

/// Received request.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    /// Header fields.
    pub fields: Vec<String>,
}

impl Request {
    /// Returns the value of a field; its name is compared without case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|field| {
            let (found, value) = field.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Returns the start of the requested range.
    pub fn range_start(&self) -> Option<usize> {
        Some(self.range()?.0)
    }

    /// Returns the start of the requested range, and its exclusive end if it has one.
    pub fn range(&self) -> Option<(usize, Option<usize>)> {
        let range = self
            .field("Range")?
            .strip_prefix("bytes=")
            .expect("a range in bytes");
        let (first, last) = range.split_once('-').expect("a single range");
        let last = (!last.is_empty()).then(|| last.parse::<usize>().expect("a number"));
        Some((first.parse().expect("a number"), last.map(|last| last + 1)))
    }

    /// Returns the response of a conforming server that has `whole` with this ETag; without one
    /// if it is empty.
    pub fn respond_with(&self, whole: &[u8], etag: &str) -> Response {
        let with_etag = |response: Response| match etag {
            "" => response,
            etag => response.header("ETag", etag),
        };
        let is_same_version = self
            .field("If-Range")
            .is_none_or(|condition| condition == etag);
        let range = if is_same_version { self.range() } else { None };
        with_etag(match range {
            None => Response::body(whole),
            Some((first, end)) if first < whole.len() => {
                Response::part(whole, first, end.unwrap_or(whole.len()).min(whole.len()))
            }
            Some(_) => {
                Response::status(416).header("Content-Range", &format!("bytes */{}", whole.len()))
            }
        })
    }

    fn read(from: &mut impl BufRead) -> Option<Self> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let path = lines.first()?.split(' ').nth(1)?.to_owned();
        Some(Self {
            path,
            fields: lines.split_off(1),
        })
    }
}

/// Connection, with or without TLS.
type Stream = dyn ReadWrite;

trait ReadWrite: Read + Write + Send {}

impl<S: Read + Write + Send> ReadWrite for S {}

/// Self-signed certificate.
pub struct Certificate {
    pub pem: String,
    pub key_pem: String,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Makes a certificate for these names and addresses.
    pub fn of(names: &[&str]) -> Self {
        Self::valid_until(4000, names)
    }

    /// Makes a certificate that is valid until the start of this year.
    pub fn valid_until(year: i32, names: &[&str]) -> Self {
        Self::with(names, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    /// Makes a certificate with CA:TRUE.
    pub fn of_ca(names: &[&str]) -> Self {
        Self::with(names, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
        })
    }

    fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let signing_key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key);
        Self {
            pem: cert.pem(),
            key_pem: signing_key.serialize_pem(),
            config: Arc::new(config.unwrap()),
        }
    }

    /// Returns the configuration of a server with this certificate.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// Running server. When dropped, it stops listening, and fails the test if it got no request.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    may_be_idle: bool,
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

struct State {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    active: AtomicUsize,
    max_active: AtomicUsize,
    connections: AtomicUsize,
    sent: AtomicUsize,
    stopping: AtomicBool,
}

impl Server {
    /// Starts a server that responds to each request with the result of `handler`.
    pub fn start(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::listen(None, Box::new(handler))
    }

    /// Starts a server with TLS.
    pub fn start_tls(
        certificate: &Certificate,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(Arc::clone(&certificate.config)), Box::new(handler))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, handler: Box<Handler>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            handler,
            requests: Mutex::default(),
            active: AtomicUsize::new(0),
            max_active: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(SeqCst) {
                    break;
                }
                let stream = stream.expect("accept");
                let state = Arc::clone(&shared);
                stream.set_nodelay(true).expect("set TCP_NODELAY");
                let tls = tls
                    .clone()
                    .map(|config| ServerConnection::new(config).unwrap());
                thread::spawn(move || match tls {
                    None => state.serve(Box::new(stream)),
                    Some(tls) => state.serve(Box::new(StreamOwned::new(tls, stream))),
                });
            }
        });
        Self {
            address,
            scheme,
            state,
            may_be_idle: false,
        }
    }

    /// Starts a server with a response for each of these paths, and 404 for all others.
    pub fn with_paths(responses: impl IntoIterator<Item = (&'static str, Response)>) -> Self {
        let responses: Vec<_> = responses.into_iter().collect();
        Self::start(move |request| {
            let found = responses.iter().find(|(path, _)| *path == request.path);
            found.map_or_else(|| Response::status(404), |(_, response)| response.clone())
        })
    }

    /// Allows that the server gets no request.
    pub fn may_be_idle(mut self) -> Self {
        self.may_be_idle = true;
        self
    }

    /// Returns the URL of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Returns the largest number of concurrent requests.
    pub fn max_concurrent(&self) -> usize {
        self.state.max_active.load(SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// Returns the number of body bytes that were sent.
    pub fn sent(&self) -> usize {
        self.state.sent.load(SeqCst)
    }

    /// Returns the number of body bytes that the clients have read, or a few less: bytes in the
    /// socket buffers are not counted.
    pub fn delivered(&self) -> usize {
        let sent = self.sent();
        sent.saturating_sub(unread_from(self.address.port()))
    }

    /// Waits until no request is active.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        until(|| self.state.active.load(SeqCst) == 0);
    }

    /// Waits until this number of requests has been received.
    #[track_caller]
    pub fn wait_for(&self, requests: usize) {
        until(|| self.state.requests.lock().unwrap().len() >= requests);
    }
}

impl State {
    /// Serves one connection.
    fn serve(&self, stream: Box<Stream>) {
        self.connections.fetch_add(1, SeqCst);
        let mut stream = BufReader::new(stream);
        while let Some(request) = Request::read(&mut stream) {
            let active = ActiveRequest::new(self);
            self.requests.lock().unwrap().push(request.clone());
            let sent = (self.handler)(&request).send(stream.get_mut().as_mut(), active);
            // I/O errors are expected when a client aborts.
            if !sent.unwrap_or(false) {
                break;
            }
        }
    }
}

/// Guard that counts a request as active.
struct ActiveRequest<'a>(&'a State);

impl<'a> ActiveRequest<'a> {
    fn new(state: &'a State) -> Self {
        let active = state.active.fetch_add(1, SeqCst) + 1;
        state.max_active.fetch_max(active, SeqCst);
        Self(state)
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopping.store(true, SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        if !thread::panicking() && !self.may_be_idle {
            assert!(
                !self.state.requests.lock().unwrap().is_empty(),
                "the server got no request"
            );
        }
    }
}
