//! The parts of the `myapp` program as a library: an echo server, its client, a downloader of
//! many files, and a `cat` that reads side by side; all on [smol] executors.
//!
//! # Layout
//!
//! | module | what it does |
//! |---|---|
//! | [`cat`] | reads files side by side and writes them in order |
//! | [`download`] | fetches many URLs, a few at a time |
//! | [`echo`] | sends messages to an echo server and collects the replies |
//! | [`serve`] | answers each message with itself |
//! | [`net`] | addresses, connections, TLS, listening sockets |
//! | [`limits`] | how many at once, how fast, how long, how soon again, until when |
//! | [`measure`] | latencies and their percentiles |
//! | [`runtime`] | runs a future to its end; threads that wait for their sockets with epoll |
//! | [`units`], [`escape`] | sizes and durations; bytes from strangers made safe to show |
//! | [`error_chain`] | errors as one line |
//! | [`decompress`] | gzip, zstd and brotli |
//!
//! A module imports only from those below it, and a tool never from another tool.
//!
//! # Invariants
//!
//! - Nothing here prints, reads the environment, handles signals, exits or panics on input.
//! - Nothing is unbounded: each queue, buffer and number of tasks has a limit.
//! - What fails is told with the operation and the object; the cause is the error's `source`.
//!
//! # Threads
//!
//! A tool is one future with an executor of its own inside: it runs on the thread that polls it,
//! and ends with all its tasks when it is dropped. [`serve`], and ping and load of [`echo`], run on
//! threads of their own, each with its own sockets, executor, timers and reactor, that end with its
//! future too. Reading and writing
//! files happens on smol's pool for blocking work; all other sockets, and timers, wake through
//! smol's reactor thread.

#![warn(unreachable_pub)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

pub mod cat;
pub mod decompress;
pub mod download;
pub mod echo;
pub mod error_chain;
pub mod escape;
pub mod limits;
pub mod measure;
pub mod net;
pub mod runtime;
pub mod serve;
pub mod units;

/// Compiles and runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
