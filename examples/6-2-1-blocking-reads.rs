//! 6.2.1 Blocking reads: the second file is opened when the first has ended, and the times add up.
//!
//! `cargo run --example 6-2-1-blocking-reads`

use std::time::Instant;
use std::{fs, io};

#[path = "support/slow_files.rs"]
mod slow_files;
#[path = "support/temp_dir.rs"]
mod temp_dir;

fn read_file(path: &str) -> io::Result<String> {
    println!("Inicio de la lectura del archivo: {path}");
    // The thread sleeps in the kernel until the file has ended.
    let content = fs::read_to_string(path)?;
    println!("Archivo {path} leído.");
    Ok(content)
}

fn main() -> io::Result<()> {
    let _dir = temp_dir::TempDir::enter()?;
    slow_files::create()?;
    let start = Instant::now();
    read_file("example1.txt")?;
    read_file("example2.txt")?;
    let seconds = start.elapsed().as_secs_f64();
    println!("Tiempo total de lectura: {seconds:.3} segundos");
    Ok(())
}
