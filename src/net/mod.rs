//! Addresses as people type them ([`address`]), connections to them ([`connect`]), sockets that
//! wait for connections ([`listener`]), and the connections that come in (`stream`).

pub mod address;
pub mod connect;
pub mod listener;
pub(crate) mod stream;
