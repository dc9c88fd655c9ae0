//! Networking: addresses ([`address`]), name resolution ([`resolver`]), outgoing connections
//! ([`connect`]), listeners ([`listener`]) and TLS ([`tls`]).

pub mod address;
pub mod connect;
pub mod listener;
pub(crate) mod local;
pub(crate) mod proxy_protocol;
pub mod resolver;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod udp;
mod unix;
