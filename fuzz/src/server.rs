//! Server on loopback that replies to each request with given bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Number of concurrent connections.
const THREADS: usize = 8;

/// Longer than any pause of a client that does not hang.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reply to one request.
#[derive(Default)]
pub struct Reply {
    /// Each piece is written with a call of its own.
    pub pieces: Vec<Vec<u8>>,
    /// Written repeatedly until the client closes.
    pub endless: Option<Vec<u8>>,
    /// Whether the connection stays open for the next request.
    pub keep_alive: bool,
    /// Gets the number of bytes when they are sent.
    pub sent: Option<Sender<usize>>,
}

type Handler = Box<dyn FnMut(&str) -> Reply + Send>;

pub struct Server {
    address: SocketAddr,
    handler: Arc<Mutex<Handler>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("bind to loopback"));
        let address = listener.local_addr().expect("the address of a listener");
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(Box::new(|_| Reply::default())));
        for _ in 0..THREADS {
            let listener = listener.clone();
            let handler = handler.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A client may close at any time.
                    let _ = serve(stream, &handler);
                }
            });
        }
        Self { address, handler }
    }

    /// Sets the replies to all requests from now on.
    pub fn set_handler(&self, handler: impl FnMut(&str) -> Reply + Send + 'static) {
        *self.handler.lock().expect("no panic in the handler") = Box::new(handler);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn serve(mut stream: TcpStream, handler: &Mutex<Handler>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    while let Some(request) = read_head(&mut stream)? {
        let reply = handler.lock().expect("no panic in the handler")(&request);
        let sent = send(&mut stream, &reply);
        if !reply.keep_alive {
            let _ = stream.shutdown(Shutdown::Write);
        }
        if let Some(sender) = &reply.sent {
            let _ = sender.send(sent);
        }
        if !reply.keep_alive {
            // Closing with unread bytes would reset the connection.
            while stream.read(&mut [0; 1024])? > 0 {}
            break;
        }
    }
    Ok(())
}

fn send(stream: &mut TcpStream, reply: &Reply) -> usize {
    let endless = reply.endless.iter().cycle();
    let mut sent = 0;
    for piece in reply.pieces.iter().chain(endless) {
        if stream.write_all(piece).is_err() {
            break;
        }
        sent += piece.len();
        if reply.pieces.len() > 1 {
            // Lets the client read the piece before the next one is sent.
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
