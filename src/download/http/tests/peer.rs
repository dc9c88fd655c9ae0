//! Scripted server: each connection sends fixed bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use url::Url;

/// Action after the last response of a connection.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// Closes in order.
    Close,
    /// Resets the connection.
    Reset,
    /// Stays silent until the client closes.
    Hold,
}

/// The answers on one connection, one a request, and its end.
pub(super) struct Script {
    answers: Vec<Vec<u8>>,
    end: End,
}

impl Script {
    pub(super) fn new<B: AsRef<[u8]>>(answers: impl IntoIterator<Item = B>, end: End) -> Self {
        Self {
            answers: answers
                .into_iter()
                .map(|answer| answer.as_ref().to_vec())
                .collect(),
            end,
        }
    }

    /// Reads a request before each answer and gives the requests; fewer where the client left.
    pub(super) fn play<S: Read + Write>(&self, stream: &mut S, mut asked: impl FnMut(String)) {
        for answer in &self.answers {
            let Some(request) = read_head(stream) else {
                return;
            };
            asked(request);
            // A client that has seen enough may close before it has read everything.
            if stream
                .write_all(answer)
                .and_then(|()| stream.flush())
                .is_err()
            {
                return;
            }
        }
        if let End::Hold = self.end {
            // A byte here would be an unexpected request, which `requests` reports.
            while let Some(request) = read_head(stream) {
                asked(request);
            }
        }
    }
}

/// The running server. Its connections end with the test's client.
pub(super) struct Peer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Peer {
    /// Plays the scripts, one a connection; further connections are closed at once.
    pub(super) fn start(scripts: impl IntoIterator<Item = Script>) -> Self {
        let scripts: Vec<_> = scripts.into_iter().collect();
        Self::serve(move |number, stream, asked| {
            let Some(script) = scripts.get(number) else {
                return;
            };
            script.play(stream, asked);
            if let End::Reset = script.end {
                set_socket_linger(&*stream, Some(Duration::ZERO)).unwrap();
            }
        })
    }

    /// Serves each connection, by its number, on a thread of its own.
    pub(super) fn serve(
        serve: impl Fn(usize, &mut TcpStream, &mut dyn FnMut(String)) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let seen = seen.clone();
                let serve = serve.clone();
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    serve(number, &mut stream, &mut |head| {
                        seen.lock().unwrap().push((number, head))
                    });
                });
            }
        });
        Self { address, requests }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Returns the connection number of each request, in order of arrival.
    pub(super) fn connections(&self) -> Vec<usize> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .map(|(number, _)| *number)
            .collect()
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .map(|(_, head)| head.clone())
            .collect()
    }
}

/// A request head, `None` at the end of the stream. Byte by byte: what follows is the next one's.
fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}
