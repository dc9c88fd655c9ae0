//! 6.4.2 Writes a file line by line, with a pause after each line.
//!
//! `cargo run --example 6-4-2-write-lines`

use std::io;
use std::time::Duration;

use async_fs::File;
use futures_lite::AsyncWriteExt;
use smol::Timer;

#[path = "support/temp_dir.rs"]
mod temp_dir;

const PAUSE: Duration = Duration::from_millis(100);

async fn write_file(path: &str, lines: &[&str]) -> io::Result<()> {
    let mut file = File::create(path).await?;
    for line in lines {
        file.write_all(format!("{line}\n").as_bytes()).await?;
        println!("Línea escrita: {line}");
        Timer::after(PAUSE).await;
    }
    // Until here the lines may be in a buffer, and the error of a write not yet reported.
    file.flush().await
}

fn main() -> io::Result<()> {
    let _dir = temp_dir::TempDir::enter()?;
    smol::block_on(async {
        write_file("output.txt", &["Línea 1", "Línea 2", "Línea 3"]).await?;
        let content = async_fs::read_to_string("output.txt").await?;
        println!("output.txt: {} líneas", content.lines().count());
        Ok(())
    })
}
