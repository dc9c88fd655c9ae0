//! Ten fetches, three at a time: a permit is taken before a task starts. The server counts how
//! many it was asked for at once.
//!
//! ```sh
//! cargo run --example limit-concurrency
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::{AsyncReadExt, stream};
use myapp::download::http::{Client, ClientConfig, HttpError};
use myapp::limits::semaphore::for_each_concurrent;
use url::Url;

/// The requests that the server is working on, and the most that there were at once.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });

    let client = Client::new(ClientConfig::default())?;
    let three = NonZeroUsize::new(3).ok_or("three is not zero")?;
    let start = Instant::now();
    let fetches = for_each_concurrent(three, stream::iter(1..=10), |number| {
        let (client, server) = (&client, &server);
        async move {
            let result = fetch(client, server, number).await;
            println!(
                "{:>4} ms  {number}: {result:?}",
                start.elapsed().as_millis()
            );
        }
    });
    myapp::runtime::block_on(fetches);

    println!("at most {} at once", MOST.load(SeqCst));
    Ok(())
}

async fn fetch(client: &Client, server: &Url, number: u32) -> Result<String, HttpError> {
    let mut url = server.clone();
    url.set_path(&number.to_string());
    let mut response = client.get(&url, &[]).await?;
    let mut body = String::new();
    response
        .read_to_string(&mut body)
        .await
        .map_err(HttpError::from_io)?;
    Ok(body)
}

/// Answers the requests of one connection, each after 100 ms of work.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(request) = lines.next().transpose()? {
        while lines
            .next()
            .transpose()?
            .is_some_and(|field| !field.is_empty())
        {}
        MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
        thread::sleep(Duration::from_millis(100));
        RUNNING.fetch_sub(1, SeqCst);
        let body = format!("you asked: {request}");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}
