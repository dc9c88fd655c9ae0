//! Parser of PROXY protocol headers: generated headers are understood, and mutated ones never
//! change their meaning with what follows.

use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;
use myapp::internals::proxy_protocol::{Announced, Header, MAX_HEADER_LEN, parse};

use crate::grammar;

/// Parses a valid header, then mutations of it.
///
/// # Errors
///
/// A description of the failed check, and the bytes.
pub fn check(random: &mut Rng) -> Result<(), String> {
    let (mut bytes, announced) = header(random);
    let wrong = |what: &str, bytes: &[u8]| format!("{what}: b\"{}\"", bytes.escape_ascii());
    let expected = Header {
        announced,
        len: bytes.len(),
    };
    bytes.extend_from_slice(&b"PROXY TCP4 \r\n\0"[..random.usize(..14)]);
    if parse(&bytes) != Ok(Some(expected)) {
        return Err(wrong("a valid header is not understood", &bytes));
    }
    for _ in 0..4 {
        grammar::mutate(&mut bytes, random);
        stable(&bytes).map_err(|what| wrong(what, &bytes))?;
    }
    Ok(())
}

/// Checks that no prefix has another result than a longer one, except that it is incomplete.
fn stable(bytes: &[u8]) -> Result<(), &'static str> {
    let mut result = Ok(None);
    for len in 0..=bytes.len() {
        let longer = parse(&bytes[..len]);
        if result != Ok(None) && result != longer {
            return Err("more bytes change the result");
        }
        if let Ok(Some(header)) = &longer
            && !(1..=len.min(MAX_HEADER_LEN)).contains(&header.len)
        {
            return Err("the header is longer than its bytes");
        }
        result = longer;
    }
    if bytes.len() >= MAX_HEADER_LEN && result == Ok(None) {
        return Err("a header that stays incomplete");
    }
    Ok(())
}

/// Generates a valid header, and the client that it announces.
fn header(random: &mut Rng) -> (Vec<u8>, Option<Announced>) {
    let source = address(random);
    let same_family = |other: &SocketAddr| other.is_ipv4() == source.is_ipv4();
    let destination = std::iter::repeat_with(|| address(random)).find(same_family);
    let destination = destination.unwrap_or(source);
    let endpoints = Some(Announced::Ip {
        source,
        destination,
    });
    if random.bool() {
        let family = if source.is_ipv4() { 4 } else { 6 };
        let [from, to] = [source.ip(), destination.ip()];
        let [from_port, to_port] = [source.port(), destination.port()];
        return match random.u8(..4) {
            0 => (b"PROXY UNKNOWN\r\n".into(), None),
            _ => {
                let line = format!("PROXY TCP{family} {from} {to} {from_port} {to_port}\r\n");
                (line.into(), endpoints)
            }
        };
    }
    let transport = random.u8(1..3);
    let (family, mut body, announced) = match random.u8(..5) {
        0 => (0x30 | transport, vec![b'/'; 216], Some(unix())),
        1 => (random.u8(1..3), vec![7; random.usize(..300)], None),
        _ if source.is_ipv4() => (0x10 | transport, ip_body(source, destination), endpoints),
        _ => (0x20 | transport, ip_body(source, destination), endpoints),
    };
    for _ in 0..random.usize(..4) {
        let value = vec![random.u8(..); random.usize(..400)];
        // Any type but that of the checksum.
        body.push(random.u8(4..));
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(value);
    }
    let is_local = random.u8(..5) == 0;
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | u8::from(!is_local), family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    (bytes, if is_local { None } else { announced })
}

fn unix() -> Announced {
    Announced::Unix {
        source: vec![b'/'; 108],
        destination: vec![b'/'; 108],
    }
}

fn address(random: &mut Rng) -> SocketAddr {
    let ip: IpAddr = if random.bool() {
        random.u32(..).to_be_bytes().into()
    } else {
        (random.u128(..) >> random.u8(..128)).to_be_bytes().into()
    };
    SocketAddr::new(ip, random.u16(..))
}

fn ip_body(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let ip = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [source, destination].map(|address| address.port().to_be_bytes());
    [ip(source), ip(destination), ports.concat()].concat()
}
