//! Reads a file line by line, with a pause after each line, and does other work meanwhile.
//!
//! The file comes through `async-fs`: each read happens on the pool for blocking work, so the
//! thread is free while the disk is busy, and during the pauses.
//!
//! Run it with `cargo run --example read-lines`.

#![allow(clippy::print_stdout)]

use std::io;
use std::time::{Duration, Instant};

use async_fs::File;
use futures_lite::io::BufReader;
use futures_lite::{AsyncBufReadExt, StreamExt, future};
use smol::Timer;

const POEM: &str = "\
The fog comes
on little cat feet.
It sits looking
over harbor and city
on silent haunches
and then moves on.
";

const PAUSE: Duration = Duration::from_millis(150);

fn main() -> io::Result<()> {
    smol::block_on(async {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("fog.txt");
        async_fs::write(&path, POEM).await?;

        let start = Instant::now();
        let read = async {
            let mut lines = BufReader::new(File::open(&path).await?).lines();
            let mut number = 0;
            while let Some(line) = lines.next().await {
                number += 1;
                println!("{:>5} ms  {number}  {}", start.elapsed().as_millis(), line?);
                Timer::after(PAUSE).await;
            }
            Ok::<_, io::Error>(number)
        };
        // The same thread counts while the reader waits: it ends with the last line.
        let mut ticks = 0;
        let count = async {
            let mut interval = Timer::interval(PAUSE / 10);
            loop {
                interval.next().await;
                ticks += 1;
            }
        };
        let lines = future::or(read, count).await?;
        println!(
            "{lines} lines in {:.2?}; {ticks} ticks meanwhile",
            start.elapsed()
        );
        Ok(())
    })
}
