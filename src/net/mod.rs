//! Networking: addresses ([`address`]), name resolution ([`resolver`]), outgoing connections
//! ([`connect`]) and their local addresses ([`local`]), listeners ([`listener`]) and accepted
//! connections (`stream`), UDP (`udp`), TLS ([`tls`]), and the header of a proxy
//! ([`proxy_protocol`]).

pub mod address;
pub mod connect;
pub mod listener;
pub mod local;
pub mod proxy_protocol;
pub mod resolver;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod udp;
mod unix;
