//! Expected checksums, from the command line, a file or a URL.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use clap::Args;
use futures_lite::{future, stream};
use myapp::download::{
    Checksum, ChecksumList, Config, Downloader, Item, Limits, ServerDigests, Source, Target,
};
use myapp::internals::{Escaped, redact_query};
use myapp::runtime;

use super::errors::code;
use crate::exit_code::{CommandError, ExitCode};
use crate::home;
use crate::output::stderr;

/// Maximum size of a checksum list.
const MAX_LIST_LEN: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(next_help_heading = "Checksums")]
pub(super) struct ChecksumOptions {
    /// Expected checksum of a single URL (sha256, sha512, sha1, md5, blake3)
    #[arg(long, value_name = "ALGO=HEX")]
    pub(super) checksum: Option<Checksum>,
    /// Checksum list; files not listed fail
    #[arg(long, value_name = "FILE|URL")]
    checksums: Option<String>,
    /// Do not verify Repr-Digest, Digest, x-goog-hash … of servers
    #[arg(long)]
    no_server_digest: bool,
}

impl ChecksumOptions {
    /// Sets the handling of digests of servers.
    pub(super) fn apply(&self, config: Config) -> Config {
        let server_digests = if self.no_server_digest {
            ServerDigests::Ignore
        } else {
            config.server_digests
        };
        Config {
            server_digests,
            ..config
        }
    }

    /// Adds the checksum list, if one was given, to `config`.
    pub(super) fn read(&self, config: Config) -> Result<Config, CommandError> {
        let Some(location) = &self.checksums else {
            return Ok(config);
        };
        let is_url = location.contains("://");
        let path = home::expand(location.as_ref());
        let context = || {
            let shown = if is_url {
                Escaped(shown_url(location).as_bytes()).to_string()
            } else {
                stderr::path(&path)
            };
            format!("read checksums from {shown}")
        };
        let text = if is_url {
            fetch(location, &config)?
        } else {
            fs::read(&path).map_err(|error| {
                CommandError::new(
                    ExitCode::LocalFile,
                    anyhow::Error::new(error).context(context()),
                )
            })?
        };
        let list = String::from_utf8_lossy(&text).parse::<ChecksumList>();
        let list = list.map_err(|error| {
            CommandError::new(
                ExitCode::Checksum,
                anyhow::Error::new(error).context(context()),
            )
        })?;
        Ok(Config {
            checksums: Some(list),
            ..config
        })
    }
}

/// Returns a URL without credentials and query.
fn shown_url(url: &str) -> String {
    match Source::parse(url) {
        Ok(source) => redact_query(source.url.as_str()).into_owned(),
        Err(failed) => redact_query(&failed.url).into_owned(),
    }
}

/// Downloads a URL into memory.
fn fetch(url: &str, config: &Config) -> Result<Vec<u8>, CommandError> {
    let config = Config {
        limits: Limits {
            max_size: Some(MAX_LIST_LEN),
            ..config.limits.clone()
        },
        ..config.clone()
    };
    let failed = |error| CommandError::new(code(&error), error);
    let downloader = Downloader::new(config).map_err(failed)?;
    let memory = Memory::default();
    let target = Target::Writer(Box::new(memory.clone()));
    let item = Item::parse(url).map(|item| Item { target, ..item });
    let list = stream::once(item);
    let mut report = runtime::block_on(downloader.run(list, &|_, _| {}, future::pending()));
    if let Some(failure) = report.failures.pop() {
        return Err(CommandError::new(
            code(&failure.source),
            anyhow!("{failure}: {}", failure.cause()),
        ));
    }
    Ok(std::mem::take(
        &mut memory.0.lock().unwrap_or_else(PoisonError::into_inner),
    ))
}

/// In-memory output.
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
