//! Library of the `myapp` program: an echo server, its client and load generator, a parallel
//! downloader, and a parallel `cat`, on [smol] executors.
//!
//! # Layout
//!
//! | module | what it does |
//! |---|---|
//! | [`cat`] | reads files concurrently and writes them in order |
//! | [`download`] | downloads many URLs with limited concurrency |
//! | [`echo`] | echo client, ping, load generator |
//! | [`serve`] | echo server |
//! | [`net`] | addresses, name resolution, connections, listeners, TLS |
//! | [`limits`] | semaphore, rate limit, timeout, backoff, shutdown, descriptor limit |
//! | [`measure`] | latency histogram, percentiles, time series |
//! | [`runtime`] | `block_on`, worker threads with an epoll reactor each |
//! | [`units`], [`escape`] | sizes and durations; escaping of untrusted bytes |
//! | [`error_chain`] | an error and its causes on one line |
//! | [`decompress`] | gzip, zstd and brotli |
//! | [`atomic_file`] | file that replaces another one atomically |
//!
//! A module imports only from those below it, and a tool never from another tool.
//!
//! # Features
//!
//! `serve`, `echo`, `download` and `cat` select the tools, `tls`, `cookies` and `decompress` what
//! they support, `units` the module of that name. The default, `cli`, is all of them and the program.
//! In a build without `tls`, `tls://` and `https://` are an error.
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
// Shared modules contain what only some tools use. The complete build finds dead code.
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
pub mod atomic_file;
#[cfg(feature = "cat")]
pub mod cat;
#[cfg(any(feature = "cat", feature = "download"))]
pub mod checksum;
#[cfg(feature = "decompress")]
pub mod decompress;
#[cfg(all(feature = "download", not(feature = "decompress")))]
#[path = "decompress_disabled.rs"]
mod decompress;
#[cfg(any(feature = "cat", feature = "download"))]
mod descriptor;
#[cfg(any(feature = "download", feature = "echo", feature = "serve"))]
pub(crate) mod digits;
#[cfg(feature = "download")]
pub mod download;
#[cfg(feature = "echo")]
pub mod echo;
pub mod error_chain;
pub mod escape;
pub mod limits;
#[cfg(feature = "echo")]
pub mod measure;
#[cfg(any(feature = "download", feature = "echo", feature = "serve"))]
pub mod net;
pub mod runtime;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "units")]
pub mod units;

/// Compiles and runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
