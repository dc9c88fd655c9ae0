use super::*;

use fastrand::Rng;

#[track_caller]
fn ip(source: &str, destination: &str) -> Option<Announced> {
    Some(Announced::Ip {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    })
}

/// Fails unless `header` is parsed to `announced`, alone and before other data, and each of its
/// prefixes is incomplete.
#[track_caller]
fn assert_header(header: &[u8], announced: &Option<Announced>) {
    let expected = Header {
        announced: announced.clone(),
        len: header.len(),
    };
    for after in [b"".as_slice(), b"\r\n", b"PROXY ", &[0; 5000]] {
        let bytes = [header, after].concat();
        assert_eq!(parse(&bytes), Ok(Some(expected.clone())), "{after:?}");
    }
    for len in 0..header.len() {
        assert_eq!(parse(&header[..len]), Ok(None), "{len} bytes");
    }
}

#[test]
fn version_1_addresses_are_parsed() {
    // Section 2.1.
    assert_header(
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        &ip("192.168.0.1:56324", "192.168.0.11:443"),
    );
    assert_header(
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        &ip("255.255.255.255:65535", "255.255.255.255:65535"),
    );
    assert_header(
        b"PROXY TCP6 2001:DB8::1 ::1 0 9\r\n",
        &ip("[2001:db8::1]:0", "[::1]:9"),
    );
    let longest = ["ffff"; 8].join(":");
    assert_header(
        format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n").as_bytes(),
        &ip(&format!("[{longest}]:65535"), &format!("[{longest}]:65535")),
    );
}

#[test]
fn version_1_unknown_ignores_the_rest() {
    assert_header(b"PROXY UNKNOWN\r\n", &None);
    assert_header(b"PROXY UNKNOWN \r\n", &None);
    assert_header(b"PROXY UNKNOWN \xff\0 \r \n a b c d\r\n", &None);
    let longest = ["ffff"; 8].join(":");
    let line = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!(line.len(), MAX_V1_LEN);
    assert_header(line.as_bytes(), &None);
}

#[test]
fn malformed_version_1_line_is_an_error() {
    for (line, cause) in [
        ("", "not six fields"),
        ("TCP4", "not six fields"),
        ("TCP4 1.2.3.4 1.2.3.4 5", "not six fields"),
        ("TCP4 1.2.3.4 1.2.3.4 5 6 ", "not six fields"),
        ("TCP4  1.2.3.4 1.2.3.4 5 6", "not six fields"),
        ("UNKNOWNS", "not six fields"),
        ("UDP4 1.2.3.4 1.2.3.4 5 6", "unknown protocol"),
        ("tcp4 1.2.3.4 1.2.3.4 5 6", "unknown protocol"),
        ("TCP4 ::1 1.2.3.4 5 6", "invalid address"),
        ("TCP4 1.2.3.4 1.2.3 5 6", "invalid address"),
        ("TCP4 1.2.3.04 1.2.3.4 5 6", "invalid address"),
        ("TCP4 1.2.3.256 1.2.3.4 5 6", "invalid address"),
        ("TCP6 1.2.3.4 ::1 5 6", "invalid address"),
        ("TCP6 ::1 ::1%1 5 6", "invalid address"),
        ("TCP6 ::1 [::1] 5 6", "invalid address"),
        ("TCP6 1::2::3 ::1 5 6", "invalid address"),
        ("TCP4 1.2.3.4 1.2.3.4 65536 6", "invalid port"),
        ("TCP4 1.2.3.4 1.2.3.4 5 06", "invalid port"),
        ("TCP4 1.2.3.4 1.2.3.4 +5 6", "invalid port"),
        ("TCP4 1.2.3.4 1.2.3.4 5 6\n", "invalid port"),
        ("TCP4 1.2.3.4 1.2.3.4 5 6\r", "invalid port"),
        ("TCP4 1.2.3.4 1.2.3.4 \u{665} 6", "invalid port"),
    ] {
        let line = format!("PROXY {line}\r\n");
        let expected = HeaderError::Line(cause);
        assert_eq!(parse(line.as_bytes()), Err(expected), "{line:?}");
    }
    let not_text = b"PROXY TCP4 \xff 1.2.3.4 5 6\r\n";
    assert_eq!(parse(not_text), Err(HeaderError::Line("not ASCII")));
}

#[test]
fn version_1_line_is_at_most_107_bytes() {
    let start = b"PROXY UNKNOWN ";
    let padding = vec![b'x'; MAX_V1_LEN - start.len()];
    let line = [start, padding.as_slice()].concat();
    assert_eq!(parse(&line[..MAX_V1_LEN - 1]), Ok(None));
    assert_eq!(parse(&line), Err(HeaderError::LineTooLong));
    let late = [&line[..MAX_V1_LEN - 1], b"\r\n"].concat();
    assert_eq!(parse(&late), Err(HeaderError::LineTooLong));
}

#[test]
fn other_protocols_are_no_header() {
    for text in [
        "GET / HTTP/1.1\r\n",
        "PROXYTCP4",
        "proxy TCP4",
        "\r\n\r\n\r\n",
        "P ",
        "\n",
        "\x16\x03\x01",
    ] {
        assert_eq!(
            parse(text.as_bytes()),
            Err(HeaderError::Signature),
            "{text:?}"
        );
    }
    assert_eq!(parse(b""), Ok(None));
}

/// Returns a version 2 header.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &len, body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], len.as_slice(), value].concat()
}

const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 1, 0xbb];

/// Returns a version 2 header with TLVs, one of which gets the checksum.
fn with_crc(tlvs: &[u8]) -> Vec<u8> {
    let header = v2(0x21, 0x11, &[IPV4, tlvs].concat());
    let crc = crc32c([&header, b"", b""]).to_be_bytes();
    let at = header.windows(7).position(|bytes| bytes == crc_tlv());
    let at = at.expect("a checksum") + 3;
    [&header[..at], &crc, &header[at + 4..]].concat()
}

fn crc_tlv() -> Vec<u8> {
    tlv(TLV_CRC32C, &[0; 4])
}

#[test]
fn version_2_addresses_are_parsed() {
    let expected = ip("192.0.2.1:56324", "198.51.100.2:443");
    for family in [0x11, 0x12] {
        assert_header(&v2(0x21, family, IPV4), &expected);
    }
    let source = Ipv6Addr::from_str("2001:db8::1").unwrap().octets();
    let body = [
        &source,
        &Ipv6Addr::LOCALHOST.octets(),
        &[0xdc, 4, 1, 0xbb][..],
    ]
    .concat();
    for family in [0x21, 0x22] {
        let expected = ip("[2001:db8::1]:56324", "[::1]:443");
        assert_header(&v2(0x21, family, &body), &expected);
    }
    let mut body = [0; 2 * UNIX_ADDRESS_LEN];
    body[..7].copy_from_slice(b"\0client");
    body[UNIX_ADDRESS_LEN..][..11].copy_from_slice(b"/run/x\0junk");
    for family in [0x31, 0x32] {
        let expected = Announced::Unix {
            source: b"\0client".to_vec(),
            destination: b"/run/x".to_vec(),
        };
        assert_header(&v2(0x21, family, &body), &Some(expected));
    }
    let expected = Announced::Unix {
        source: vec![b'x'; UNIX_ADDRESS_LEN],
        destination: vec![],
    };
    let body = [[b'x'; UNIX_ADDRESS_LEN], [0; UNIX_ADDRESS_LEN]].concat();
    assert_header(&v2(0x21, 0x31, &body), &Some(expected));
}

#[test]
fn local_and_unspecified_headers_announce_nothing() {
    for body in [&[] as &[u8], IPV4, &[0xff; 300]] {
        for family in [0x00, 0x11, 0x21, 0x31] {
            assert_header(&v2(0x20, family, body), &None);
        }
        for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
            assert_header(&v2(0x21, family, body), &None);
        }
    }
}

#[test]
fn unknown_version_2_values_are_errors() {
    for (command, expected) in [
        (0x01, HeaderError::Version(0)),
        (0x11, HeaderError::Version(1)),
        (0x31, HeaderError::Version(3)),
        (0x22, HeaderError::Command(2)),
        (0x2f, HeaderError::Command(15)),
    ] {
        let header = v2(command, 0x11, IPV4);
        assert_eq!(parse(&header), Err(expected));
        assert_eq!(
            parse(&header[..13]),
            Err(expected),
            "as soon as it is there"
        );
    }
    for family in [0x03, 0x13, 0x1f, 0x40, 0x41, 0xff] {
        for command in [0x20, 0x21] {
            let header = v2(command, family, IPV4);
            assert_eq!(parse(&header), Err(HeaderError::Family(family)));
            assert_eq!(parse(&header[..14]), Err(HeaderError::Family(family)));
        }
    }
}

#[test]
fn version_2_length_is_bounded_and_holds_the_addresses() {
    let longest = MAX_HEADER_LEN - V2_FIXED_LEN;
    let noop = tlv(0x04, &vec![0; longest - IPV4.len() - 3]);
    let header = v2(0x21, 0x11, &[IPV4, &noop].concat());
    assert_eq!(header.len(), MAX_HEADER_LEN);
    assert_header(&header, &ip("192.0.2.1:56324", "198.51.100.2:443"));
    for (command, len) in [(0x20, longest + 1), (0x21, usize::from(u16::MAX))] {
        let header = v2(command, 0x11, &vec![0; len]);
        let expected = HeaderError::TooLong(V2_FIXED_LEN + len);
        assert_eq!(parse(&header[..V2_FIXED_LEN]), Err(expected));
    }
    for (family, len) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
        let header = v2(0x21, family, &vec![0; len - 1]);
        assert_eq!(parse(&header), Err(HeaderError::AddressLength));
    }
}

#[test]
fn tlvs_are_skipped_if_they_are_complete() {
    let expected = ip("192.0.2.1:56324", "198.51.100.2:443");
    let all = [tlv(0x01, b"h2"), tlv(0x20, &[0; 9]), tlv(0xe0, b"")].concat();
    let header = v2(0x21, 0x11, &[IPV4, &all].concat());
    assert_header(&header, &expected);
    for tlvs in [
        &[4_u8] as &[u8],
        &[4, 0],
        &[4, 0, 1],
        &[4, 0xff, 0xff, 0],
        &[3, 0, 3, 0, 0, 0],
    ] {
        let header = v2(0x21, 0x11, &[IPV4, tlvs].concat());
        assert_eq!(parse(&header), Err(HeaderError::Tlv), "{tlvs:?}");
    }
}

#[test]
fn checksum_is_verified() {
    // RFC 3720 appendix B.4.
    assert_eq!(crc32c([&[0; 32], b"", b""]), 0x8a91_36aa);
    assert_eq!(crc32c([&[0xff; 16], &[0xff; 16], b""]), 0x62a8_ab43);
    assert_eq!(crc32c([b"1234", b"", b"56789"]), 0xe306_9283);
    let expected = ip("192.0.2.1:56324", "198.51.100.2:443");
    let noop = tlv(0x04, b"padding");
    for tlvs in [
        crc_tlv(),
        [noop.as_slice(), &crc_tlv()].concat(),
        [crc_tlv().as_slice(), &noop].concat(),
    ] {
        let header = with_crc(&tlvs);
        assert_header(&header, &expected);
        // Bytes of addresses and values; others change the structure of the header.
        for at in [16, 20, 24, header.len() - 1] {
            let mut changed = header.clone();
            changed[at] ^= 1;
            assert_eq!(parse(&changed), Err(HeaderError::Checksum), "byte {at}");
        }
    }
}

/// Mutates valid headers: the result never depends on what follows, and an error or a header
/// stays what it is with more bytes.
#[test]
fn more_bytes_never_change_a_result() {
    let mut rng = Rng::with_seed(7);
    let headers = [
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::1 0 9\r\n".to_vec(),
        b"PROXY UNKNOWN x\r\n".to_vec(),
        v2(0x20, 0, b""),
        v2(0x21, 0x31, &[b'x'; 2 * UNIX_ADDRESS_LEN]),
        with_crc(&[tlv(0x04, b"padding"), crc_tlv()].concat()),
    ];
    for _ in 0..20_000 {
        let mut bytes = headers[rng.usize(..headers.len())].clone();
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = if rng.bool() {
                rng.u8(..)
            } else {
                bytes[at] ^ (1 << rng.u8(..8))
            };
        }
        bytes.extend_from_slice(&[0; 3]);
        let mut result = Ok(None);
        for len in 0..=bytes.len() {
            let longer = parse(&bytes[..len]);
            assert!(
                result == longer || result == Ok(None),
                "{}",
                bytes.escape_ascii()
            );
            if let Ok(Some(header)) = &longer {
                assert!(header.len <= len);
            }
            result = longer;
        }
    }
}
