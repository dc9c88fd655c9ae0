//! PROXY protocol, versions 1 and 2: the header with which a proxy announces the client of a
//! connection. Pure functions on bytes.
//!
//! Sections refer to the specification, `doc/proxy-protocol.txt` of HAProxy (2020/03/05).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{FromStr as _, from_utf8};

/// Maximum length of a header in bytes. Section 2 demands 536; certificates that a proxy adds as
/// TLVs make it longer.
pub const MAX_HEADER_LEN: usize = 4096;

/// Maximum length of a version 1 header with its CRLF (section 2.1).
const MAX_V1_LEN: usize = 107;

/// Start of a version 1 header (section 2.1).
const V1_SIGNATURE: &[u8] = b"PROXY ";

/// Start of a version 2 header (section 2.2).
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Length of a version 2 header without addresses and TLVs.
const V2_FIXED_LEN: usize = 16;

/// Length of an address in a Unix address block, as in `struct sockaddr_un`.
const UNIX_ADDRESS_LEN: usize = 108;

/// Type of the TLV with the checksum of the header (section 2.2.3).
const TLV_CRC32C: u8 = 0x03;

/// A complete header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The announced client. `None` if the proxy announces none: the real endpoints of the
    /// connection count.
    pub announced: Option<Announced>,
    /// Length of the header in bytes. The data of the client follows.
    pub len: usize,
}

/// Endpoints of the connection between a client and its proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Announced {
    /// TCP or UDP.
    Ip {
        /// The client.
        source: SocketAddr,
        /// The address to which the client connected.
        destination: SocketAddr,
    },
    /// A Unix socket.
    Unix {
        /// Path of the client's socket, empty if it has none. An abstract name starts with a NUL.
        source: Vec<u8>,
        /// Path of the proxy's socket.
        destination: Vec<u8>,
    },
}

/// Error in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The bytes are the start of neither version.
    #[error("no PROXY protocol header")]
    Signature,
    /// A version 1 header without CRLF in its first 107 bytes.
    #[error("version 1 header without CRLF in its first {MAX_V1_LEN} bytes")]
    LineTooLong,
    /// A malformed version 1 header.
    #[error("malformed version 1 header: {0}")]
    Line(&'static str),
    /// An unknown version.
    #[error("unknown version {0}")]
    Version(u8),
    /// An unknown command of version 2.
    #[error("unknown command {0}")]
    Command(u8),
    /// An unknown address family or transport protocol of version 2.
    #[error("unknown address family and protocol 0x{0:02x}")]
    Family(u8),
    /// A version 2 header over [`MAX_HEADER_LEN`].
    #[error("header of {0} bytes is longer than {MAX_HEADER_LEN}")]
    TooLong(usize),
    /// A version 2 header whose length does not hold its addresses.
    #[error("header is too short for its addresses")]
    AddressLength,
    /// A TLV of version 2 that ends after the header.
    #[error("TLV ends after the header")]
    Tlv,
    /// A wrong checksum.
    #[error("CRC32c mismatch")]
    Checksum,
}

/// Parses the header at the start of `bytes`. Returns `None` if it is incomplete, and fails as
/// soon as the bytes cannot become a valid header.
///
/// # Errors
///
/// [`HeaderError`], upon which the connection has to be closed (sections 2.1 and 2.2).
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if starts_alike(bytes, V1_SIGNATURE) {
        parse_v1(bytes)
    } else if starts_alike(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else {
        Err(HeaderError::Signature)
    }
}

/// Returns whether `bytes` and `signature` are equal as far as both go.
fn starts_alike(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let line = &bytes[..bytes.len().min(MAX_V1_LEN)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        if line.len() == MAX_V1_LEN {
            return Err(HeaderError::LineTooLong);
        }
        return Ok(None);
    };
    Ok(Some(Header {
        announced: parse_v1_line(&line[..end])?,
        len: end + 2,
    }))
}

/// Parses a version 1 header without its CRLF (section 2.1).
fn parse_v1_line(line: &[u8]) -> Result<Option<Announced>, HeaderError> {
    let rest = line
        .strip_prefix(V1_SIGNATURE)
        .ok_or(HeaderError::Line("incomplete"))?;
    // Anything may follow, even bytes that are no text.
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let text = from_utf8(rest).map_err(|_| HeaderError::Line("not ASCII"))?;
    let fields: Vec<_> = text.split(' ').collect();
    let [protocol, source, destination, source_port, destination_port] = fields[..] else {
        return Err(HeaderError::Line("not six fields"));
    };
    let ip = match protocol {
        "TCP4" => |text| Ipv4Addr::from_str(text).map(IpAddr::V4),
        "TCP6" => |text| Ipv6Addr::from_str(text).map(IpAddr::V6),
        _ => return Err(HeaderError::Line("unknown protocol")),
    };
    let ip = |text| ip(text).map_err(|_| HeaderError::Line("invalid address"));
    Ok(Some(Announced::Ip {
        source: SocketAddr::new(ip(source)?, parse_port(source_port)?),
        destination: SocketAddr::new(ip(destination)?, parse_port(destination_port)?),
    }))
}

/// Parses a decimal port without leading zeros.
fn parse_port(text: &str) -> Result<u16, HeaderError> {
    let is_canonical = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    let port = if is_canonical {
        text.parse().ok()
    } else {
        None
    };
    port.ok_or(HeaderError::Line("invalid port"))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if let Some(&command) = bytes.get(12) {
        check_command(command)?;
    }
    if let Some(&family) = bytes.get(13) {
        check_family(family)?;
    }
    let Some((fixed, _)) = bytes.split_first_chunk::<V2_FIXED_LEN>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let len = V2_FIXED_LEN + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_HEADER_LEN {
        return Err(HeaderError::TooLong(len));
    }
    let Some(header) = bytes.get(..len) else {
        return Ok(None);
    };
    let body = &header[V2_FIXED_LEN..];
    let parsed = match (command & 0x0f, family >> 4, family & 0x0f) {
        // LOCAL, AF_UNSPEC or an unspecified protocol: the rest of the header is skipped.
        (0, _, _) | (_, 0, _) | (_, _, 0) => {
            return Ok(Some(Header {
                announced: None,
                len,
            }));
        }
        (_, 1, _) => parse_ip::<4>(body),
        (_, 2, _) => parse_ip::<16>(body),
        _ => parse_unix(body),
    };
    let (announced, tlvs) = parsed.ok_or(HeaderError::AddressLength)?;
    check_tlvs(header, tlvs)?;
    Ok(Some(Header {
        announced: Some(announced),
        len,
    }))
}

/// Checks the version and the command, the two halves of one byte.
fn check_command(byte: u8) -> Result<(), HeaderError> {
    match (byte >> 4, byte & 0x0f) {
        (2, 0 | 1) => Ok(()),
        (2, command) => Err(HeaderError::Command(command)),
        (version, _) => Err(HeaderError::Version(version)),
    }
}

/// Checks the address family and the transport protocol. Those of LOCAL are ignored, but no sender
/// may use other values (section 2.2).
fn check_family(byte: u8) -> Result<(), HeaderError> {
    match (byte >> 4, byte & 0x0f) {
        (0..=3, 0..=2) => Ok(()),
        _ => Err(HeaderError::Family(byte)),
    }
}

/// Parses IP addresses of `N` bytes and ports, and returns the TLVs after them.
fn parse_ip<const N: usize>(body: &[u8]) -> Option<(Announced, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, tlvs) = rest.split_first_chunk()?;
    let announced = Announced::Ip {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    };
    Some((announced, tlvs))
}

/// Parses the paths of Unix sockets, and returns the TLVs after them.
fn parse_unix(body: &[u8]) -> Option<(Announced, &[u8])> {
    let (source, rest) = body.split_at_checked(UNIX_ADDRESS_LEN)?;
    let (destination, tlvs) = rest.split_at_checked(UNIX_ADDRESS_LEN)?;
    let announced = Announced::Unix {
        source: trim_path(source).to_vec(),
        destination: trim_path(destination).to_vec(),
    };
    Some((announced, tlvs))
}

/// Returns a path up to its NUL, or an abstract name, which starts with a NUL, up to its padding.
fn trim_path(path: &[u8]) -> &[u8] {
    let len = if path.first() == Some(&0) {
        path.iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1)
    } else {
        path.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(path.len())
    };
    &path[..len]
}

/// Checks that the TLVs at the end of a header are complete, and verifies a checksum.
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), HeaderError> {
    while !tlvs.is_empty() {
        let ([kind, high, low], rest) = tlvs.split_first_chunk().ok_or(HeaderError::Tlv)?;
        let length = u16::from_be_bytes([*high, *low]);
        let (value, next) = rest
            .split_at_checked(length.into())
            .ok_or(HeaderError::Tlv)?;
        if *kind == TLV_CRC32C {
            check_crc(header, header.len() - rest.len(), value)?;
        }
        tlvs = next;
    }
    Ok(())
}

/// Verifies the checksum at an offset of the header. It is computed with zeros in its place
/// (section 2.2.3).
fn check_crc(header: &[u8], offset: usize, value: &[u8]) -> Result<(), HeaderError> {
    let expected = value.try_into().map_err(|_| HeaderError::Tlv)?;
    let before = &header[..offset];
    let after = &header[offset + value.len()..];
    if crc32c([before, &[0; 4], after]) == u32::from_be_bytes(expected) {
        Ok(())
    } else {
        Err(HeaderError::Checksum)
    }
}

/// Computes the CRC32c of concatenated parts (RFC 9260 appendix A, formerly RFC 4960 appendix B).
/// Bit by bit: a header is short, and few have a checksum.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    // Castagnoli's polynomial, with reflected bits.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
    let bytes = parts.into_iter().flatten();
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests;
