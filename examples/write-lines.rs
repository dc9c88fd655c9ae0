//! Writes a file line by line, with a pause after each line, while somebody else looks at it.
//!
//! The lines go through `async-fs`, which keeps what it is given in a buffer: a line is in the
//! file for others to see only when `flush` has returned.
//!
//! Run it with `cargo run --example write-lines`.

#![allow(clippy::print_stdout)]

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use async_fs::File;
use futures_lite::{AsyncWriteExt, StreamExt, future};
use smol::Timer;

const LINES: [&str; 5] = ["one", "two", "three", "four", "five"];

const PAUSE: Duration = Duration::from_millis(200);

fn main() -> io::Result<()> {
    smol::block_on(async {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("lines.txt");
        let start = Instant::now();
        future::or(write(&path), watch(&path, start)).await?;
        println!("{:>5} ms  the file, whole:", start.elapsed().as_millis());
        print!("{}", async_fs::read_to_string(&path).await?);
        Ok(())
    })
}

async fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path).await?;
    for line in LINES {
        file.write_all(line.as_bytes()).await?;
        file.write_all(b"\n").await?;
        file.flush().await?;
        Timer::after(PAUSE).await;
    }
    file.sync_all().await
}

/// Tells how the file grows, on the same thread, in the writer's pauses.
async fn watch(path: &Path, start: Instant) -> io::Result<()> {
    let mut seen = 0;
    let mut looks = Timer::interval(PAUSE / 10);
    while looks.next().await.is_some() {
        // It may not be there yet.
        let size = async_fs::metadata(path).await.map_or(0, |file| file.len());
        if size != seen {
            println!("{:>5} ms  {size} bytes", start.elapsed().as_millis());
            seen = size;
        }
    }
    Ok(())
}
