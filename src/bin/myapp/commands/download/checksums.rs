//! What the files are to add up to: given, in a file, or behind a URL.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use clap::Args;
use futures_lite::{future, stream};
use myapp::download::{Checksum, ChecksumList, Config, Downloader, Item, Target};
use myapp::escape::Escaped;
use myapp::runtime;

use super::failed::code;
use crate::exit_code::{Code, Failure};

/// A longer list is none.
const LONGEST: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(next_help_heading = "Checksums")]
pub(super) struct ChecksumOptions {
    /// What a single URL adds up to; sha256, sha512, sha1, md5, blake3
    #[arg(long, value_name = "ALGO=HEX")]
    pub(super) checksum: Option<Checksum>,
    /// A list such as sha256sum writes; a file that is not in it fails
    #[arg(long, value_name = "FILE|URL")]
    checksums: Option<String>,
}

impl ChecksumOptions {
    /// Reads the list, if there is one.
    pub(super) fn read(&self, config: Config) -> Result<Config, Failure> {
        let Some(place) = &self.checksums else {
            return Ok(config);
        };
        let named = || format!("read checksums from {}", Escaped(place.as_bytes()));
        let text = match place.contains("://") {
            true => fetch(place, &config)?,
            false => fs::read(place).map_err(|error| {
                Failure::new(Code::LocalFile, anyhow::Error::new(error).context(named()))
            })?,
        };
        let list = String::from_utf8_lossy(&text).parse::<ChecksumList>();
        let list = list.map_err(|error| {
            Failure::new(Code::Checksum, anyhow::Error::new(error).context(named()))
        })?;
        Ok(Config {
            checksums: Some(list),
            ..config
        })
    }
}

/// The bytes behind a URL, in memory.
fn fetch(url: &str, config: &Config) -> Result<Vec<u8>, Failure> {
    let config = Config {
        max_size: Some(LONGEST),
        ..config.clone()
    };
    let failed = |error| Failure::new(code(&error), error);
    let downloader = Downloader::new(config).map_err(failed)?;
    let memory = Memory::default();
    let target = Target::Sink(Box::new(memory.clone()));
    let item = Item::parse(url).map(|item| Item { target, ..item });
    let list = stream::once(item);
    let mut report = runtime::block_on(downloader.run(list, &|_, _| {}, future::pending()));
    if let Some(failure) = report.failures.pop() {
        return Err(Failure::new(
            code(&failure.source),
            anyhow!("{failure}: {}", failure.cause()),
        ));
    }
    Ok(std::mem::take(
        &mut memory.0.lock().unwrap_or_else(PoisonError::into_inner),
    ))
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
