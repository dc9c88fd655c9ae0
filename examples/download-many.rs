//! Downloads many files at once, in chunks, three at a time; a bad status is an error of that
//! file alone. The server is a small one inside the example.
//!
//! ```sh
//! cargo run --example download-many
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::thread;

use futures_lite::{StreamExt, future, stream};
use myapp::download::{Config, Downloader, Event, Item, Limits, OutputPolicy};
use myapp::units::Size;

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });

    let folder = tempfile::tempdir()?;
    let jobs = NonZeroUsize::new(3).ok_or("three is not zero")?;
    let config = Config {
        output: OutputPolicy {
            dir: folder.path().to_owned(),
            ..OutputPolicy::default()
        },
        limits: Limits {
            jobs,
            ..Limits::default()
        },
        ..Config::default()
    };
    let downloader = Downloader::new(config)?;

    // The list may be any stream: here ten names, the seventh of which the server does not have.
    let urls: Vec<_> = (1..=10)
        .map(|number| format!("{server}/file-{number}.bin"))
        .collect();
    let list = stream::iter(urls).map(|url| Item::parse(&url));
    let observer = |number: u64, event: Event<'_>| match event {
        Event::Started { url, .. } => println!("{number}: GET {url}"),
        Event::Progress {
            downloaded: position,
        } => println!("{number}: {} have come", Size(position)),
        Event::Saved(saved) => println!("{number}: saved, {}", Size(saved.bytes)),
        Event::Failed(failure) => println!("{number}: failed: {}", failure.source),
        _ => {}
    };
    // The third argument is a future that ends the run early; this one never does.
    let report = myapp::runtime::block_on(downloader.run(list, &observer, future::pending()));

    println!(
        "{} saved, {} in all; {} failed",
        report.saved,
        Size(report.bytes),
        report.failed
    );
    println!("in the folder: {}", folder.path().read_dir()?.count());
    Ok(())
}

/// Answers the requests of one connection: 100,000 bytes, or 404 for file 7.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(request) = lines.next().transpose()? {
        while lines
            .next()
            .transpose()?
            .is_some_and(|field| !field.is_empty())
        {}
        if request.contains("/file-7.bin") {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            stream.write_all(&[b'x'; 100_000])?;
        }
    }
    Ok(())
}
