//! 6.4.1 Reads a file line by line, with a pause after each line.
//!
//! `cargo run --example 6-4-1-read-lines`

use std::io;
use std::time::Duration;

use async_fs::File;
use futures_lite::StreamExt;
use futures_lite::io::{AsyncBufReadExt, BufReader};
use smol::Timer;

#[path = "support/temp_dir.rs"]
mod temp_dir;

const PAUSE: Duration = Duration::from_millis(100);

async fn read_file(path: &str) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(path).await?).lines();
    // `next` instead of `async for`: the stream yields a result per line.
    while let Some(line) = lines.next().await {
        println!("Leyendo línea: {}", line?.trim());
        // Stands for work; other tasks of the thread run meanwhile.
        Timer::after(PAUSE).await;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let _dir = temp_dir::TempDir::enter()?;
    smol::block_on(async {
        async_fs::write("example.txt", "Línea 1\nLínea 2\nLínea 3\n").await?;
        read_file("example.txt").await
    })
}
