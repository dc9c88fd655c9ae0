//! HTTP/1.1 client on [surf](https://docs.rs/surf)'s types.
//!
//! [`Transport`] sends the requests of any surf client. It replaces surf's own transports, which
//! report a truncated body as complete. [`Client`] is a surf client on this transport for
//! downloads: one GET request, one response with raw headers, a streamed body. No other module
//! names surf.

// | module | contents |
// |---|---|
// | `client`, `config`, `response` | `Client`, `ClientConfig`, `Response` |
// | `transport`, `round_trip` | `Transport`: connection for a request; request sent, response head read |
// | `request_body` | body of a request in wire format |
// | `body` | body reader, which returns its connection to the pool at the end |
// | `connection`, `read_timeout`, `pool` | buffered connection; inactivity timeout; idle connections |
// | `request`, `response_head`, `body_length`, `chunked` | pure encoding and parsing |
// | `proxy`, `proxy_auth` | proxy selection, SOCKS5; authentication to HTTP proxies |
// | `connect_tunnel` | connection through a proxy |
// | `basic_auth`, `authentication` | user name and password; challenges, Basic and Digest |

mod authentication;
mod basic_auth;
mod body;
mod body_length;
pub(crate) mod chunked;
mod client;
mod config;
mod connect_tunnel;
mod connection;
pub(crate) mod error;
mod pool;
mod proxy;
mod proxy_auth;
mod read_timeout;
mod repair;
mod request;
mod request_body;
mod response;
pub(crate) mod response_head;
mod round_trip;
#[cfg(test)]
mod tests;
mod transport;

pub use authentication::PasswordScheme;
pub(super) use authentication::{Challenges, DigestSessions};
pub use basic_auth::{BasicAuth, BasicAuthError};
pub use client::Client;
pub use config::ClientConfig;
pub(super) use connection::ReadTarget;
pub(super) use error::redact_url;
pub use error::{HttpError, ProtocolError, ProxyError};
pub use proxy::{InvalidProxy, NoProxy, ParseProxyError, Proxies, Proxy, ProxySetting};
pub(super) use request::is_token;
pub use response::Response;
pub use response_head::ResponseHead;
/// The version of surf whose clients use [`Transport`].
pub use surf;
pub use transport::Transport;
