//! Addresses as people type them ([`address`]), connections to them ([`connect`]), sockets that
//! wait for connections ([`listener`]).

pub mod address;
pub mod connect;
pub mod listener;
pub mod tls;
