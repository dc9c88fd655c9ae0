//! HTTP/1.1 server of the examples, on loopback. `/404` is missing, `/lento` is never answered,
//! every other path is a page.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_net::{TcpListener, TcpStream};
use futures_lite::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use futures_lite::{StreamExt, future};
use smol::Timer;

const RESPONSE_DELAY: Duration = Duration::from_millis(50);

/// Largest number of requests that were being answered at once.
pub static MAX_ACTIVE: AtomicUsize = AtomicUsize::new(0);
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Starts the server and returns its URL, without a path.
pub async fn start() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            smol::spawn(serve(stream)).detach();
        }
    };
    smol::spawn(accept).detach();
    Ok(url)
}

/// Answers the requests of one connection.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.clone()).lines();
    while let Some(request) = lines.next().await.transpose()? {
        let is_field = |line: String| !line.is_empty();
        while lines.next().await.transpose()?.is_some_and(is_field) {}
        MAX_ACTIVE.fetch_max(ACTIVE.fetch_add(1, SeqCst) + 1, SeqCst);
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path == "/lento" {
            future::pending::<()>().await;
        }
        Timer::after(RESPONSE_DELAY).await;
        // Before the response: a client that has it may send its next request.
        ACTIVE.fetch_sub(1, SeqCst);
        let (status, body) = match path {
            "/404" => ("404 Not Found", String::new()),
            _ => ("200 OK", "Página servida en el propio equipo. ".repeat(100)),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
    }
    Ok(())
}
