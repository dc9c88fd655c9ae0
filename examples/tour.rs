//! All four tools on loopback, one after another: a server is started, clients talk to it, files
//! are downloaded from a small HTTP server, and read side by side into one.
//!
//! ```text
//! cargo run --release --example tour
//! ```

use std::num::NonZeroUsize;
use std::path::Path;

use futures_lite::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use futures_lite::{StreamExt, future, stream};
use myapp::net::address::Address;
use myapp::{cat, download, echo, limits::shutdown, serve};
use smol::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    myapp::runtime::block_on(async {
        let server = serve::Server::bind(&[Address::loopback(0)], Default::default()).await?;
        let address = server.local_addrs()[0].clone();
        println!("1. serve: an echo server listens on tcp://{address}");
        let (stopper, stopped) = shutdown::channel();
        let clients = async {
            talk(address).await?;
            stopper.trigger();
            Ok(())
        };
        let serving = async { Result::Ok(server.run(stopped.wait()).await) };
        let (summary, ()) = future::try_zip(serving, clients).await?;
        println!(
            "   the server answered {} messages and has ended",
            summary.messages
        );

        println!("3. download: twelve files, three at a time, each whole or not there");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let report = future::or(fetch(port, folder.path()), answer(listener)).await?;
        println!(
            "   {} saved, {} failed, {} bytes",
            report.saved, report.failed, report.bytes
        );

        println!("4. cat: all of them read side by side, written in order into one file");
        let name = |n| cat::Source::Path(folder.path().join(format!("{n}.txt")));
        let (path, mode) = (folder.path().join("all.txt"), cat::WriteMode::Replace);
        let sink = cat::Sink::File {
            path,
            mode,
            fsync: false,
            tee: None,
        };
        let report = cat::run(
            (0..12).map(name).collect::<Vec<_>>(),
            Default::default(),
            sink,
            |_| {},
        )
        .await?;
        println!("   {} files, {} bytes", report.files, report.written);
        Ok(())
    })
}

async fn talk(address: Address) -> Result<()> {
    println!("2. echo: three messages at once, the replies in their order");
    let messages = ["¡Hola, servidor!", "¿Cómo estás?", "¡Adiós!"].map(echo::Message::new);
    let target = echo::Target {
        address,
        ..Default::default()
    };
    let config = echo::Config {
        target,
        ..Default::default()
    };
    let print = async |number, reply: echo::Reply| {
        println!(
            "   reply {number}: {}",
            String::from_utf8_lossy(&reply.bytes).trim_end()
        );
        Ok(())
    };
    echo::run(
        stream::iter(messages).filter_map(|message| message.ok()),
        &config,
        print,
    )
    .await
}

async fn fetch(port: u16, folder: &Path) -> Result<download::Report> {
    let jobs = NonZeroUsize::MIN.saturating_add(2);
    let config = download::Config {
        output: download::OutputPolicy {
            dir: folder.to_owned(),
            ..download::OutputPolicy::default()
        },
        limits: download::Limits {
            jobs,
            ..download::Limits::default()
        },
        ..Default::default()
    };
    let urls = (0..12).map(|n| download::Item::parse(&format!("http://127.0.0.1:{port}/{n}.txt")));
    let downloader = download::Downloader::new(config)?;
    Ok(downloader
        .run(stream::iter(urls), &|_, _| {}, future::pending())
        .await)
}

/// An HTTP server that answers with a thousand lines, one request a connection.
async fn answer<T>(listener: TcpListener) -> Result<T> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut head = BufReader::new(stream.clone()).lines();
        while head
            .next()
            .await
            .transpose()?
            .is_some_and(|line| !line.is_empty())
        {}
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 17000\r\n\r\n")
            .await?;
        stream
            .write_all(&b"a line of a file\n".repeat(1000))
            .await?;
    }
}
