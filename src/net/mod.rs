//! Addresses as people type them ([`address`]), connections to them ([`connect`], [`names`]),
//! sockets that wait for connections ([`listener`]) and the connections that come in (`stream`),
//! TLS ([`tls`]).

pub mod address;
pub mod connect;
pub mod listener;
pub mod resolver;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod udp;
