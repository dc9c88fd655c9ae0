//! Addresses as people type them ([`address`]), connections to them ([`connect`], [`names`]),
//! sockets that wait for connections ([`listener`]), TLS for clients ([`tls`]).

pub mod address;
pub mod connect;
pub mod listener;
pub mod names;
pub mod tls;
