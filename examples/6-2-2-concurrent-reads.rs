//! 6.2.2 Concurrent reads of the same files: together they take as long as the slower one.
//!
//! `cargo run --example 6-2-2-concurrent-reads`

use std::io;
use std::time::Instant;

use futures_lite::future;

#[path = "support/slow_files.rs"]
mod slow_files;
#[path = "support/temp_dir.rs"]
mod temp_dir;

async fn read_file(path: &str) -> io::Result<String> {
    println!("Inicio de la lectura del archivo: {path}");
    // A thread of the blocking pool reads; this thread is free for the other future.
    let content = async_fs::read_to_string(path).await?;
    println!("Archivo {path} leído.");
    Ok(content)
}

fn main() -> io::Result<()> {
    let _dir = temp_dir::TempDir::enter()?;
    slow_files::create()?;
    smol::block_on(async {
        let start = Instant::now();
        future::try_zip(read_file("example1.txt"), read_file("example2.txt")).await?;
        let seconds = start.elapsed().as_secs_f64();
        println!("Tiempo total de lectura: {seconds:.3} segundos");
        Ok(())
    })
}
