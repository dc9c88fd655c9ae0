//! The four tools on loopback: an echo server and its client, downloads from a small HTTP server,
//! and the concatenation of the downloaded files.
//!
//! `cargo run --release --example tour`

use std::num::NonZeroUsize;
use std::path::Path;

use futures_lite::{future, stream};
use myapp::net::address::Address;
use myapp::{cat, download, echo, limits::shutdown, serve};

#[path = "support/server.rs"]
mod server;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    myapp::runtime::block_on(async {
        let server = serve::Server::bind([Address::loopback(0)], Default::default()).await?;
        let address = server.local_addrs()[0].clone();
        println!("1. serve: listening on tcp://{address}");
        let (trigger, shutdown) = shutdown::channel();
        let clients = async {
            send(address).await?;
            trigger.trigger();
            Ok(())
        };
        let serving = async { Result::Ok(server.run(shutdown.wait()).await) };
        let (summary, ()) = future::try_zip(serving, clients).await?;
        println!("   drained after {} messages", summary.messages);

        println!("3. download: 12 files, three at a time");
        let report = fetch(&server::start().await?, folder.path()).await?;
        println!(
            "   {} saved, {} failed, {} bytes",
            report.saved, report.failed, report.bytes
        );

        println!("4. cat: all of them, in order, into one file");
        let name = |n| cat::Source::Path(folder.path().join(format!("{n}.txt")));
        let all = folder.path().join("all.txt");
        let sink = cat::Sink::File(cat::FileSink::new(all, cat::WriteMode::Replace));
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

async fn send(address: Address) -> Result<()> {
    println!("2. echo: three messages at once, replies in message order");
    let messages = [
        echo::Message::new("¡Hola, servidor!")?,
        echo::Message::new("¿Cómo estás?")?,
        echo::Message::new("¡Adiós!")?,
    ];
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
    echo::run(stream::iter(messages), &config, print).await
}

async fn fetch(server: &str, folder: &Path) -> Result<download::Report> {
    let jobs = NonZeroUsize::MIN.saturating_add(2);
    let config = download::Config {
        output: download::OutputPolicy {
            dir: folder.to_owned(),
            ..download::OutputPolicy::default()
        },
        limits: download::Limits {
            jobs: jobs.into(),
            ..download::Limits::default()
        },
        ..Default::default()
    };
    let urls = (0..12).map(|n| download::Item::parse(&format!("{server}/{n}.txt")));
    let downloader = download::Downloader::new(config)?;
    Ok(downloader
        .run(stream::iter(urls), &|_, _| {}, future::pending())
        .await)
}
