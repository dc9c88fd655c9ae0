//! `myapp serve` as seen by its clients.

mod access;
mod addresses;
mod admin;
mod clients;
mod connection_events;
mod cost;
mod drain;
mod fairness;
mod faults;
mod handler;
mod health;
mod inherited;
mod library;
mod limits;
mod long_lines;
mod metrics;
mod proxies;
mod proxy_protocol;
mod reload;
mod replies;
mod shutdown;
mod systemd;
mod tls;
mod tls_faults;
mod udp;
mod unix;
mod whoami;

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Returns random bytes, with lines of many lengths.
fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(length as u64).fill(&mut bytes);
    bytes
}

/// Sends up to `limit` bytes until the write blocks, and returns their number.
fn fill(mut client: &TcpStream, limit: usize) -> usize {
    let mut sent = 0;
    client
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let bytes = [b'x'; 1 << 16];
    while sent < limit {
        match client.write(&bytes[..bytes.len().min(limit - sent)]) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    sent
}
