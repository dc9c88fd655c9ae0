//! Echo server and client, load generator, parallel downloader and parallel `cat`, on
//! [smol](https://docs.rs/smol).
//!
//! The library of the program `myapp`. Its recipes: echo server in a test, download with progress,
//! load test from code, `cat` pipeline and scripted server, are in `docs/library.md`.
//!
//! ```
//! use myapp::echo::{self, Message, Target};
//! use myapp::net::address::Address;
//! use myapp::serve::{self, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let message = Message::new("hello")?;
//! let mut reply = None;
//! myapp::runtime::block_on(async {
//!     let server = Server::bind([Address::loopback(0)], serve::Config::default()).await?;
//!     let target = Target {
//!         address: server.local_addrs()[0].clone(),
//!         ..Target::default()
//!     };
//!     let config = echo::Config {
//!         target,
//!         ..echo::Config::default()
//!     };
//!     // The server drains when the client is done.
//!     server.run(async { reply = Some(echo::send(&message, &config).await) }).await;
//!     Ok::<_, serve::Error>(())
//! })?;
//! let reply = reply.ok_or("no reply")?;
//! reply.outcome?;
//! assert_eq!(reply.bytes, b"hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`serve`] | echo server, or a server with a handler of the caller |
//! | [`echo`] | echo client, ping, load generator |
//! | [`download`] | downloader of many URLs; HTTP/1.1 transport for surf |
//! | [`cat`] | reads files concurrently and writes them in order |
//! | [`net`] | addresses, name resolution, TLS configuration, errors of connections |
//! | [`measure`] | latency histogram, percentiles, time series |
//! | [`limits`] | semaphore, shutdown signal |
//! | [`runtime`] | `block_on` |
//! | [`error_chain`] | an error and its causes on one line |
//! | `units` | sizes and durations as text |
//!
//! # Features
//!
//! `serve`, `echo`, `download` and `cat` select the tools, `tls`, `cookies` and `decompress` what
//! they support, `units` the parsers of sizes and durations. The default, `cli`, is all of them and
//! the program. In a build without `tls`, `tls://` and `https://` are an error. The feature
//! `__internals` and items that are hidden from this documentation have no stability.
//!
//! # Invariants
//!
//! - Nothing here prints, reads the environment, handles signals, exits or panics on input.
//! - Nothing is unbounded: each queue, buffer and number of tasks has a limit.
//! - Errors name the operation and the object; the cause is the error's `source`.
//!
//! # Threads
//!
//! A tool is one future with its own executor: it runs on the thread that polls it, and dropping it
//! ends all of its tasks. [`serve`], and ping and load of [`echo`], use worker threads, each with
//! its own sockets, executor, timers and reactor; they end with the future too. Files are read and
//! written on smol's blocking pool; all other sockets and timers use smol's reactor thread.

#![warn(unreachable_pub)]
// Shared modules contain what only some tools use. The complete build finds dead code, and with
// `unreachable_pub` what is public for nobody.
#![cfg_attr(
    not(feature = "cli"),
    allow(dead_code, unreachable_pub, unused_imports)
)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[cfg(any(feature = "cat", feature = "download"))]
mod atomic_file;
#[cfg(feature = "cat")]
pub mod cat;
#[cfg(any(feature = "cat", feature = "download"))]
mod checksum;
#[cfg(feature = "decompress")]
mod decompress;
#[cfg(all(feature = "download", not(feature = "decompress")))]
#[path = "decompress_disabled.rs"]
mod decompress;
#[cfg(any(feature = "cat", feature = "download"))]
mod descriptor;
#[cfg(any(feature = "download", feature = "echo", feature = "serve"))]
mod digits;
#[cfg(feature = "download")]
pub mod download;
#[cfg(feature = "echo")]
pub mod echo;
pub mod error_chain;
mod escape;
#[cfg(feature = "__internals")]
pub mod internals;
pub mod limits;
#[cfg(feature = "echo")]
pub mod measure;
#[cfg(any(feature = "download", feature = "echo", feature = "serve"))]
pub mod net;
pub mod runtime;
#[cfg(any(
    feature = "cat",
    feature = "download",
    feature = "echo",
    feature = "serve"
))]
mod serialize;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "download")]
mod speed;
#[cfg(feature = "units")]
pub mod units;

/// Compiles and runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the recipes.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct Recipes;
