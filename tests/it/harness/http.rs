//! An HTTP server on plain sockets whose misbehaviour is data: an [`Answer`] says what is sent,
//! how it is framed, and where it goes wrong. It counts what it sees.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Bytes that look random and are the same for the same seed.
pub fn seeded(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

/// What a request is answered with.
#[derive(Clone)]
pub struct Answer {
    version: &'static str,
    status: u16,
    headers: Vec<String>,
    body: Arc<[u8]>,
    framing: Framing,
    /// Waited before the head is sent.
    delay: Duration,
    fault: Fault,
    /// Sent behind the body.
    surplus: Vec<u8>,
}

/// How the end of the body is told.
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    /// Pieces of 1,000 bytes, and a trailer field.
    Chunked,
    /// By closing the connection.
    Close,
    /// By the status: there is none.
    None,
}

/// Where sending goes wrong, counted in bytes of the body as it is on the wire.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// The connection is closed there.
    Cut(usize),
    /// Nothing comes from there on, but the connection stays.
    Stall(usize),
    /// So many bytes come at a time, with a pause behind each.
    Drip(usize, Duration),
}

impl Answer {
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
            ..Self::body(format!("this is no file but the page of a {status}"))
        }
    }

    /// An answer that has no body and no length of one.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            framing: Framing::None,
            ..Self::body("")
        }
    }

    /// The bytes of `whole` from `first` up to but not with `end`, as the answer to a range.
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

    pub fn until_close(self) -> Self {
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

    pub fn cut_at(self, bytes: usize) -> Self {
        Self {
            fault: Fault::Cut(bytes),
            ..self
        }
    }

    pub fn stalled_at(self, bytes: usize) -> Self {
        Self {
            fault: Fault::Stall(bytes),
            ..self
        }
    }

    pub fn dripping(self, bytes: usize, pause: Duration) -> Self {
        Self {
            fault: Fault::Drip(bytes, pause),
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

    fn on_the_wire(&self) -> Vec<u8> {
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

    /// Sends all of it; whether the connection can be used again. The request is no longer
    /// `running` when its last bytes leave: the next may come before the call has returned.
    fn send(&self, stream: &mut Wire, running: Running<'_>) -> io::Result<bool> {
        thread::sleep(self.delay);
        let wire = self.on_the_wire();
        // Each byte is counted before it can be read, and no sooner than what is sent before it.
        let sends = |count| running.0.sent.fetch_add(count, SeqCst);
        stream.write_all(self.head().as_bytes())?;
        match self.fault {
            Fault::None => {
                sends(wire.len());
                drop(running);
                stream.write_all(&wire)?;
            }
            Fault::Cut(at) => {
                sends(at);
                drop(running);
                stream.write_all(&wire[..at])?;
                return Ok(false);
            }
            Fault::Stall(at) => {
                sends(at);
                stream.write_all(&wire[..at])?;
                // Until the other side gives up: its end comes as a read of nothing.
                io::copy(stream, &mut io::sink())?;
            }
            Fault::Drip(bytes, pause) => {
                let (last, pieces) = wire.split_last().expect("a body that drips");
                for piece in pieces.chunks(bytes) {
                    sends(piece.len());
                    stream.write_all(piece)?;
                    thread::sleep(pause);
                }
                sends(1);
                drop(running);
                stream.write_all(&[*last])?;
            }
        }
        Ok(self.framing != Framing::Close)
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    /// The fields, without the request line.
    pub fields: Vec<String>,
}

impl Request {
    /// The value of a field, whatever the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|field| {
            let (found, value) = field.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Where the range that is asked for begins.
    pub fn first(&self) -> Option<usize> {
        Some(self.range()?.0)
    }

    /// Where the range that is asked for begins, and where it ends if that is told.
    pub fn range(&self) -> Option<(usize, Option<usize>)> {
        let range = self
            .field("Range")?
            .strip_prefix("bytes=")
            .expect("a range in bytes");
        let (first, last) = range.split_once('-').expect("a single range");
        let last = (!last.is_empty()).then(|| last.parse::<usize>().expect("a number"));
        Some((first.parse().expect("a number"), last.map(|last| last + 1)))
    }

    /// What an honest server with `whole` under this ETag answers, and under none if that is
    /// empty.
    pub fn honestly(&self, whole: &[u8], etag: &str) -> Answer {
        let version = |answer: Answer| match etag {
            "" => answer,
            etag => answer.header("ETag", etag),
        };
        let holds = self
            .field("If-Range")
            .is_none_or(|condition| condition == etag);
        version(match self.range().filter(|_| holds) {
            None => Answer::body(whole),
            Some((first, end)) if first < whole.len() => {
                Answer::part(whole, first, end.unwrap_or(whole.len()).min(whole.len()))
            }
            Some(_) => {
                Answer::status(416).header("Content-Range", &format!("bytes */{}", whole.len()))
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

/// A connection, plain or inside TLS.
type Wire = dyn ReadWrite;

trait ReadWrite: Read + Write + Send {}

impl<S: Read + Write + Send> ReadWrite for S {}

/// A certificate that nobody but its own file vouches for.
pub struct Certificate {
    pub pem: String,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// For these names and addresses.
    pub fn of(names: &[&str]) -> Self {
        Self::until(4000, names)
    }

    /// As [`Certificate::of`], good until the start of this year.
    pub fn until(year: i32, names: &[&str]) -> Self {
        Self::with(names, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    /// As [`Certificate::of`], but one that may issue others.
    pub fn of_authority(names: &[&str]) -> Self {
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
            config: Arc::new(config.unwrap()),
        }
    }

    /// A server that shows this certificate.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// A running server; stops listening when dropped, and fails the test if nobody called it.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    may_be_idle: bool,
}

type Answering = dyn Fn(&Request) -> Answer + Send + Sync;

struct State {
    answer: Box<Answering>,
    requests: Mutex<Vec<Request>>,
    running: AtomicUsize,
    most: AtomicUsize,
    connections: AtomicUsize,
    sent: AtomicUsize,
    stopping: AtomicBool,
}

impl Server {
    /// Answers each request with what `answer` makes of it.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(None, Box::new(answer))
    }

    /// As [`Server::start`], over TLS.
    pub fn start_tls(
        certificate: &Certificate,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(Arc::clone(&certificate.config)), Box::new(answer))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, answer: Box<Answering>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answer,
            requests: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
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
                let (stream, state) = (stream.expect("accept"), Arc::clone(&shared));
                stream.set_nodelay(true).expect("set TCP_NODELAY");
                let tls = tls
                    .clone()
                    .map(|config| ServerConnection::new(config).unwrap());
                thread::spawn(move || match tls {
                    None => state.converse(Box::new(stream)),
                    Some(tls) => state.converse(Box::new(StreamOwned::new(tls, stream))),
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

    /// Answers these paths, and any other with a 404.
    pub fn with(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let answers: Vec<_> = answers.into_iter().collect();
        Self::start(move |request| {
            let found = answers.iter().find(|(path, _)| *path == request.path);
            found.map_or_else(|| Answer::status(404), |(_, answer)| answer.clone())
        })
    }

    /// For a server that a test wants to see left alone.
    pub fn may_be_idle(mut self) -> Self {
        self.may_be_idle = true;
        self
    }

    /// The URL of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The most requests that were being answered at once.
    pub fn most_at_once(&self) -> usize {
        self.state.most.load(SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// The bytes of bodies that were sent.
    pub fn sent(&self) -> usize {
        self.state.sent.load(SeqCst)
    }

    /// The bytes of bodies that the other side has read, or a few less: what the system still
    /// holds is not among them.
    pub fn taken(&self) -> usize {
        let (sent, port) = (self.sent(), self.address.port());
        // In this order: what moves on meanwhile is held twice rather than not at all.
        let leaving = Queues::of_all()
            .filter(|all| all.local == port)
            .map(|all| all.to_send);
        let leaving = leaving.sum::<usize>();
        let come = Queues::of_all()
            .filter(|all| all.remote == port)
            .map(|all| all.to_read);
        sent.saturating_sub(leaving + come.sum::<usize>())
    }

    /// Waits until no request is being answered.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        for _ in 0..10_000 {
            if self.state.running.load(SeqCst) == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("a request is still being answered");
    }

    /// Waits until so many requests have come.
    #[track_caller]
    pub fn wait_for(&self, requests: usize) {
        for _ in 0..10_000 {
            if self.state.requests.lock().unwrap().len() >= requests {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("{} requests came, not {requests}", self.requests().len());
    }
}

impl State {
    fn converse(&self, stream: Box<Wire>) {
        self.connections.fetch_add(1, SeqCst);
        let mut stream = BufReader::new(stream);
        while let Some(request) = Request::read(&mut stream) {
            let running = Running::new(self);
            self.requests.lock().unwrap().push(request.clone());
            let sent = (self.answer)(&request).send(stream.get_mut().as_mut(), running);
            // A client that leaves in the middle is no failure of the server.
            if !sent.unwrap_or(false) {
                break;
            }
        }
    }
}

/// What the system holds of a TCP connection over IPv4, seen from one of its ends.
struct Queues {
    local: u16,
    remote: u16,
    to_send: usize,
    to_read: usize,
}

impl Queues {
    /// Those of both ends of all connections.
    fn of_all() -> impl Iterator<Item = Self> {
        let table = fs::read_to_string("/proc/net/tcp").expect("list the connections");
        let lines: Vec<_> = table.lines().skip(1).map(Self::parse).collect();
        lines.into_iter()
    }

    /// Reads `0: 0100007F:1F90 0100007F:9103 01 00000000:00000000 …`.
    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.split_whitespace().collect();
        let number = |text: &str| usize::from_str_radix(text, 16).expect("a number in hex");
        let port = |at: usize| fields[at].rsplit(':').next().map(number).unwrap() as u16;
        let (to_send, to_read) = fields[4].split_once(':').expect("two queues");
        let [to_send, to_read] = [to_send, to_read].map(number);
        Self {
            local: port(1),
            remote: port(2),
            to_send,
            to_read,
        }
    }
}

/// A request that is being answered.
struct Running<'a>(&'a State);

impl<'a> Running<'a> {
    fn new(state: &'a State) -> Self {
        let running = state.running.fetch_add(1, SeqCst) + 1;
        state.most.fetch_max(running, SeqCst);
        Self(state)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopping.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if !thread::panicking() && !self.may_be_idle {
            assert!(
                !self.state.requests.lock().unwrap().is_empty(),
                "nobody called the server"
            );
        }
    }
}
