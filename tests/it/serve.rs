//! `myapp serve`, as its clients see it.

mod addresses;
mod admission;
mod clients;
mod company;
mod cost;
mod end;
mod faults;
mod figures;
mod library;
mod limits;
mod long_lines;
mod replies;
mod systemd;
mod tls;
mod udp;
mod unix;

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Bytes that do not repeat soon, with every value and with lines of many lengths.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| random.u8(..)).collect()
}

/// Sends as much as the other side and the systems between take.
fn fill(mut client: &TcpStream, most: usize) -> usize {
    let mut sent = 0;
    client
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let bytes = [b'x'; 1 << 16];
    while sent < most {
        match client.write(&bytes[..bytes.len().min(most - sent)]) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    sent
}
