//! An HTTP/1.1 client for downloads: one GET, one answer, its body as it comes.
//!
//! Outside it is [surf](https://docs.rs/surf)'s client, inside a transport of our own, for those
//! that surf brings take a cut body for a whole one. No other module names surf.
//!
//! | module | what it does |
//! |---|---|
//! | `client` | [`Client`] and [`Response`], the face |
//! | `transport`, `exchange` | a connection for a request; the request sent, the head of the answer read |
//! | `body` | the body read from its connection, which then goes back to the pool |
//! | `connection`, `idle`, `pool` | bytes in and out; waits that end; connections for later |
//! | `request`, [`head`], [`framing`], [`chunks`] | bytes and values alone: what is sent, what came, where it ends |
//! | `proxy` | which requests go through a proxy |
//! | `tunnel`, `socks` | the connection through it |
//! | `login` | a user name and password |
//!
//! What reads a stranger's bytes is public so that it can be fuzzed.

mod body;
pub mod chunks;
mod client;
mod connection;
mod error;
mod exchange;
pub mod framing;
pub mod head;
mod idle;
mod login;
mod pool;
mod proxy;
mod request;
mod socks;
#[cfg(test)]
mod tests;
mod transport;
mod tunnel;

pub use client::{Client, ClientConfig, Response};
pub(super) use error::shown;
pub use error::{HttpError, ProtocolError, ProxyError};
pub use login::{Login, LoginError};
pub use proxy::{Exceptions, Proxies, Proxy, ProxyNameError};
