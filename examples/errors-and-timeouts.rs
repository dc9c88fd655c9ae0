//! What can go wrong with a request, and how it is told apart: a bad status, a refused
//! connection, a server that falls silent. What came well is shown up to its 100th character.
//!
//! ```sh
//! cargo run --example errors-and-timeouts
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use futures_lite::AsyncReadExt;
use myapp::download::http::{Client, ClientConfig, HttpError};
use url::Url;

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    // A port that was free a moment ago: nobody listens there.
    let closed = format!(
        "http://{}/",
        TcpListener::bind("127.0.0.1:0")?.local_addr()?
    );

    let idle_timeout = Duration::from_millis(500);
    let client = Client::new(ClientConfig {
        idle_timeout,
        ..ClientConfig::default()
    })?;
    let urls = [
        format!("{server}/page"),
        format!("{server}/missing"),
        closed,
        format!("{server}/silent"),
    ];
    myapp::runtime::block_on(async {
        for url in urls {
            match fetch(&client, &url.parse()?).await {
                Ok((200, start)) => println!("{url}\n    begins: {start}"),
                Ok((status, _)) => println!("{url}\n    bad status: {status}"),
                Err(HttpError::TimedOut { limit, .. }) => {
                    println!("{url}\n    no data for {limit:?}");
                }
                Err(HttpError::Connect(error)) => {
                    println!("{url}\n    no connection: {error}: {}", cause(&error));
                }
                Err(error) => println!("{url}\n    failed: {error}"),
            }
        }
        Ok(())
    })
}

/// The status, and the first 100 characters of the body.
async fn fetch(client: &Client, url: &Url) -> Result<(u16, String), HttpError> {
    let mut response = client.get(url, &[]).await?;
    let status = response.status();
    let mut body = Vec::new();
    // A character takes at most four bytes: more than 400 are never read.
    (&mut response)
        .take(400)
        .read_to_end(&mut body)
        .await
        .map_err(HttpError::from_io)?;
    Ok((
        status,
        String::from_utf8_lossy(&body).chars().take(100).collect(),
    ))
}

/// What the system said; an error of this library names what was tried, its source says why.
fn cause(error: &dyn Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// Answers one request according to its path.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|field| !field.is_empty())
    {}
    if request.contains("/silent") {
        thread::sleep(Duration::from_secs(5));
    } else if request.contains("/missing") {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
    } else {
        let body = "All work and no play makes the server a dull peer. ".repeat(10);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
    Ok(())
}
