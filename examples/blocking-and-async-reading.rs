//! Reads the same slow sources twice: one after another with blocking reads, then side by side.
//!
//! Each source is a pipe whose writer takes its time, as a disk far away would. Blocking reads
//! take as long as all writers together, asynchronous ones as long as the slowest.
//!
//! Run it with `cargo run --example blocking-and-async-reading`.

#![allow(clippy::print_stdout)]

use std::io::{self, PipeReader, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::AsyncReadExt;
use smol::Async;

/// The sources: a name, and the pause before each of three lines.
const SOURCES: [(&str, u64); 3] = [("alpha", 60), ("beta", 90), ("gamma", 120)];

fn main() -> io::Result<()> {
    let start = Instant::now();
    println!("blocking, one after another:");
    // A source starts when it is asked for, and nobody asks before the one before has ended.
    for (name, pause) in SOURCES {
        let began = start.elapsed();
        let mut text = String::new();
        source(name, pause)?.read_to_string(&mut text)?;
        tell(name, &text, began, start.elapsed());
    }
    println!("  all in {:.2?}\n", start.elapsed());

    let start = Instant::now();
    println!("asynchronous, side by side:");
    smol::block_on(async {
        let reads = SOURCES.map(|(name, pause)| {
            smol::spawn(async move {
                let began = start.elapsed();
                let mut text = String::new();
                Async::new(source(name, pause)?)?
                    .read_to_string(&mut text)
                    .await?;
                Ok::<_, io::Error>((name, text, began, start.elapsed()))
            })
        });
        // All of them run; their results are taken in the order of the sources.
        for read in reads {
            let (name, text, began, ended) = read.await?;
            tell(name, &text, began, ended);
        }
        Ok::<_, io::Error>(())
    })?;
    println!("  all in {:.2?}", start.elapsed());
    Ok(())
}

fn source(name: &'static str, pause: u64) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    thread::spawn(move || {
        for line in 1..=3 {
            thread::sleep(Duration::from_millis(pause));
            // With the reader gone there is nobody left to write to.
            let _ = writeln!(writer, "{name} {line}");
        }
    });
    Ok(reader)
}

fn tell(name: &str, text: &str, began: Duration, ended: Duration) {
    let lines = text.lines().count();
    println!("  {name:5} from {began:>8.2?} to {ended:>8.2?}: {lines} lines");
}
