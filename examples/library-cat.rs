//! Concatenation: files are read ahead concurrently and written in order; one is missing.
//!
//! `cargo run --example library-cat`

use std::error::Error;
use std::fs::{self, File};

use myapp::cat::{self, Config, Sink, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    for name in ["one", "two", "three"] {
        fs::write(path(name), format!("text of file {name}\n"))?;
    }
    let sources = ["one", "two", "missing", "three"].map(|name| Source::Path(path(name)));
    let output = path("output");
    let sink = Sink::Stream(File::create(&output)?.into());

    let run = cat::run(sources, Config::default(), sink, |_event| {});
    let report = myapp::runtime::block_on(run)?;

    print!("{}", fs::read_to_string(output)?);
    println!(
        "{} files, {} failed, {} bytes",
        report.files, report.failed, report.written
    );
    Ok(())
}
