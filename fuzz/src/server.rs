//! A server on loopback that answers each request with the bytes that it is told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The connections that are served at once.
const THREADS: usize = 8;

/// No client of ours is silent for so long, unless it hangs.
const SILENT: Duration = Duration::from_secs(30);

/// What follows on one request.
#[derive(Default)]
pub struct Turn {
    /// Each is written by itself.
    pub pieces: Vec<Vec<u8>>,
    /// Written again and again until the client leaves.
    pub endless: Option<Vec<u8>>,
    /// Whether the connection stays open for the next request.
    pub stays: bool,
    /// Is told how many bytes were sent when they are.
    pub told: Option<Sender<usize>>,
}

type Answering = Box<dyn FnMut(&str) -> Turn + Send>;

pub struct Server {
    address: SocketAddr,
    answering: Arc<Mutex<Answering>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("bind to loopback"));
        let address = listener.local_addr().expect("the address of a listener");
        let answering: Arc<Mutex<Answering>> = Arc::new(Mutex::new(Box::new(|_| Turn::default())));
        for _ in 0..THREADS {
            let listener = listener.clone();
            let answering = answering.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A client may leave at any time.
                    let _ = serve(stream, &answering);
                }
            });
        }
        Self { address, answering }
    }

    /// How all requests from now on are answered.
    pub fn answer(&self, answering: impl FnMut(&str) -> Turn + Send + 'static) {
        *self.answering.lock().expect("no panic while answering") = Box::new(answering);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn serve(mut stream: TcpStream, answering: &Mutex<Answering>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENT))?;
    while let Some(request) = read_head(&mut stream)? {
        let turn = answering.lock().expect("no panic while answering")(&request);
        let sent = send(&mut stream, &turn);
        if !turn.stays {
            let _ = stream.shutdown(Shutdown::Write);
        }
        if let Some(told) = &turn.told {
            let _ = told.send(sent);
        }
        if !turn.stays {
            // Closed with something unread, the connection would be reset.
            while stream.read(&mut [0; 1024])? > 0 {}
            break;
        }
    }
    Ok(())
}

fn send(stream: &mut TcpStream, turn: &Turn) -> usize {
    let endless = turn.endless.iter().cycle();
    let mut sent = 0;
    for piece in turn.pieces.iter().chain(endless) {
        if stream.write_all(piece).is_err() {
            break;
        }
        sent += piece.len();
        if turn.pieces.len() > 1 {
            // Let the client take it, so that the next piece comes by itself.
            thread::yield_now();
        }
    }
    sent
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
