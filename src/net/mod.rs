//! Addresses as people type them ([`address`]), connections to them ([`connect`], [`names`]),
//! sockets that wait for connections ([`listener`]) and the connections that come in (`stream`),
//! TLS ([`tls`]).

pub mod address;
pub mod connect;
pub(crate) mod datagram;
pub mod listener;
pub mod names;
pub(crate) mod stream;
pub mod tls;
