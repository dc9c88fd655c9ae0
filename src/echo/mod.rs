//! An echo client: sends messages and collects the replies.
//!
//! [`send`] sends one message, [`run`] many in order, [`pipe()`] copies bytes in both directions,
//! [`ping()`] measures the round-trip time, and [`load()`] generates load.
//!
//! There are two client stacks. Messages and pipes use async-net on the caller's thread, because
//! they wait for standard input, files and other futures of the caller and their cost per message
//! does not matter. Ping and load use the epoll runtime of [`crate::runtime`] on threads of their
//! own, because waking up through smol's shared reactor thread would be part of every latency
//! that they measure.
//!
//! ```
//! use myapp::echo::{self, Config, Message, Target};
//! use myapp::net::address::Address;
//!
//! # smol::block_on(async {
//! // No server listens on port 1, so the connection is refused.
//! let target = Target { address: Address::loopback(1), ..Target::default() };
//! let config = Config { target, ..Config::default() };
//! let message = Message::new("¡Hola, servidor!")?;
//! let reply = echo::send(&message, &config).await;
//! assert!(reply.outcome.is_err_and(|error| error.is_refused()));
//! # Ok::<(), echo::MessageError>(())
//! # }).unwrap();
//! ```

mod client;
mod config;
mod connector;
mod error;
mod load;
pub(crate) mod message;
mod payload;
mod report;
mod retry;
mod tls;
mod warnings;

pub use crate::net::udp::MAX_DATAGRAM_LEN;
pub use client::{pipe, run, send, wait_ready};
pub use config::{Config, ConnectionMode, LoadConfig, PingConfig, RunLimit, Target};
pub use error::{Error, Mismatch, Phase};
pub use load::load;
pub use load::ping::ping;
pub use load::udp_in_flight::MIN_DATAGRAM_LEN;
pub use message::{MAX_MESSAGE_LEN, Message, MessageError, Reply};
pub use payload::Payload;
pub use report::{Failures, LoadReport, PingReport};
pub use warnings::{RateLimit, Warning};
