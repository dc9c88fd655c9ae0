//! Concurrent downloads, three at a time; the failure of one does not stop the others.
//!
//! `cargo run --example library-download`

use std::error::Error;
use std::num::NonZeroUsize;

use futures_lite::{future, stream};
use myapp::download::{Config, Downloader, Event, Item, Limits, OutputPolicy};

#[path = "support/server.rs"]
mod server;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let jobs = NonZeroUsize::new(3).ok_or("three is not zero")?;
    let dir = folder.path().to_owned();
    let config = Config {
        output: OutputPolicy {
            dir,
            ..OutputPolicy::default()
        },
        limits: Limits {
            jobs: jobs.into(),
            ..Limits::default()
        },
        ..Config::default()
    };
    let downloader = Downloader::new(config)?;
    let observer = |number: u64, event: Event<'_>| match event {
        Event::Started { url, .. } => println!("{number}: GET {url}"),
        Event::Saved(saved) => println!("{number}: saved, {} bytes", saved.bytes),
        Event::Failed(failed) => println!("{number}: {}", failed.source),
        _ => {}
    };
    myapp::runtime::block_on(async {
        let server = server::start().await?;
        let paths = ["one", "two", "three", "404", "four", "five"];
        let items = paths.map(|path| Item::parse(&format!("{server}/{path}")));
        // The last argument is a future that cancels the run; this one is never ready.
        let report = downloader
            .run(stream::iter(items), &observer, future::pending())
            .await;
        println!("{} saved, {} failed", report.saved, report.failed);
        Ok(())
    })
}
