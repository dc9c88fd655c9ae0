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
use myapp::limits::stop::stop;
use myapp::net::address::Address;
use myapp::{cat, download, echo, serve};
use smol::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FILES: usize = 12;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    myapp::runtime::run(async {
        let server = serve::Server::bind(&[Address::loopback(0)], Default::default()).await?;
        let address = Address::loopback(server.local_addrs()[0].port());
        println!("1. serve: an echo server listens on tcp://{address}");
        let (stopper, stopped) = stop();
        let clients = async {
            talk(address).await?;
            stopper.stop();
            Ok(())
        };
        let serving = async { Result::Ok(server.run(stopped.stopped()).await) };
        let (summary, ()) = future::try_zip(serving, clients).await?;
        println!("   the server answered {} messages and has ended", summary.messages);

        println!("3. download: {FILES} files, three at a time, each whole or not there");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let report = future::or(fetch(port, folder.path()), answer(listener)).await?;
        println!("   {} saved, {} failed, {} bytes", report.saved, report.failed, report.bytes);

        println!("4. cat: all of them read side by side, written in order into one file");
        let report = join(folder.path()).await?;
        println!("   {} files, {} bytes", report.files, report.written);
        Ok(())
    })
}

async fn talk(address: Address) -> Result<()> {
    println!("2. echo: three messages at once, the replies in their order");
    let messages = ["¡Hola, servidor!", "¿Cómo estás?", "¡Adiós!"].map(echo::Message::new);
    let server = echo::Server { address, ..Default::default() };
    let config = echo::Config { server, ..Default::default() };
    let print = async |number, reply: echo::Reply| {
        println!("   reply {number}: {}", String::from_utf8_lossy(&reply.bytes).trim_end());
        Ok(())
    };
    echo::run(stream::iter(messages).filter_map(|message| message.ok()), &config, print).await
}

async fn fetch(port: u16, folder: &Path) -> Result<download::Report> {
    let jobs = NonZeroUsize::MIN.saturating_add(2);
    let config = download::Config { jobs, dir: folder.to_owned(), ..Default::default() };
    let urls = (0..FILES).map(|n| format!("http://127.0.0.1:{port}/{n}.txt"));
    let list = stream::iter(urls.map(|url| download::Item::parse(&url)));
    Ok(download::Downloader::new(config)?.run(list, &|_, _| {}, future::pending()).await)
}

async fn join(folder: &Path) -> Result<cat::Report> {
    let names = (0..FILES).map(|n| folder.join(format!("{n}.txt")));
    let sources: Vec<_> = names.map(cat::Source::Path).collect();
    let (path, mode) = (folder.join("all.txt"), cat::Mode::Replace);
    let sink = cat::Sink::File { path, mode, fsync: false, tee: None };
    Ok(cat::run(sources, Default::default(), sink, |_| {}).await?)
}

/// An HTTP server that answers with a thousand lines, one request a connection.
async fn answer<T>(listener: TcpListener) -> Result<T> {
    let body = "a line of a file\n".repeat(1000);
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", body.len());
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut request = BufReader::new(stream.clone());
        let mut line = String::new();
        while request.read_line(&mut line).await? > "\r\n".len() {
            line.clear();
        }
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
        stream.close().await?;
    }
}
