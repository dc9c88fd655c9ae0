//! Generated responses: valid ones, and ones with errors.

use fastrand::Rng;

/// Pieces of responses that are inserted at random offsets.
const TOKENS: [&[u8]; 34] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\r\n ",
    b"\n\t",
    b"\0",
    b"\x0b",
    b"\x1b",
    b"\x7f",
    b"\xff",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\"",
    b"0",
    b"-1",
    b"+5",
    b"0x5",
    b"5",
    b"ffffffffffffffff",
    b"18446744073709551615",
    b"18446744073709551616",
    b"chunked",
    b"gzip",
    b"close",
    b"keep-alive",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
];

const STATUSES: [&str; 16] = [
    "200 OK",
    "200",
    "200 ",
    "206 Partial Content",
    "204 No Content",
    "304 Not Modified",
    "404 Not Found",
    "503 x",
    "100 Continue",
    "101 Switching",
    "199 x",
    "299 \x01y",
    "999 \u{fc}",
    "099 Low",
    "20 OK",
    "2000 OK",
];

const VERSIONS: [&str; 6] = [
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "ICY",
    "HTTP/1.1 ",
];

const FIELDS: [&str; 22] = [
    "Connection: close",
    "Connection: keep-alive",
    "connection: x, Close",
    "Connection:",
    "Date: x",
    "X: y",
    "X:y ",
    "x:\t\t",
    "A: \u{fc}\u{20ac}",
    "A: b\x01c",
    "A: b\rc",
    "A\x01: b",
    "A : b",
    ": b",
    "A",
    "X: folded\r\n  line",
    "X:\r\n\t",
    " X: y",
    "Trailer: T",
    "Content-Encoding: gzip",
    "Content-Lengt: 3",
    "Set-Cookie: a=b; c",
];

const LENGTHS: [&str; 14] = [
    "Content-Length: {}, {}",
    "Content-Length: {}\r\nContent-Length: {}",
    "content-length:{}",
    "Content-Length: 0{}",
    "Content-Length: {},",
    "Content-Length: +{}",
    "Content-Length: {} ",
    "Content-Length: {}\r\nContent-Length: 1",
    "Content-Length: 1, {}",
    "Content-Length:\r\n {}",
    "Content-Length: {}\0",
    "Content-Length : {}",
    "Content-Length: {}.0",
    "Content-Length: \t{}",
];

const CODINGS: [&str; 16] = [
    "Transfer-Encoding: Chunked",
    "transfer-encoding:chunked ",
    "Transfer-Encoding: , chunked ,",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer\x01-Encoding: chunked",
];

const EXTENSIONS: [&str; 14] = [
    "",
    "",
    "",
    "",
    " ",
    ";a",
    ";a=b",
    " ; a=\"b;c\"",
    "\t",
    ";\x01",
    " 1",
    ";\r",
    "\n",
    ";a\nb",
];

const TRAILERS: [&str; 8] = [
    "T: u\r\n",
    "T: u\r\nV: w\r\n",
    "Content-Length: 3\r\n",
    "T\r\n",
    "T: u\n",
    "T : u\r\n",
    ": \r\n",
    "T: \r\r\n",
];

/// Generates a response: half of them valid or nearly so, the others with a few mutations.
pub fn response(random: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.u8(..20) == 0 {
        for _ in 0..random.usize(1..13) {
            informational(&mut bytes, random);
        }
    }
    final_response(&mut bytes, random);
    if random.bool() {
        for _ in 0..random.usize(1..4) {
            mutate(&mut bytes, random);
        }
    }
    bytes
}

/// Returns a response that every client accepts.
pub fn valid() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec()
}

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

/// Returns true once in `count` calls on average.
fn one_in(count: u32, random: &mut Rng) -> bool {
    random.u32(..count) == 0
}

fn line_end(random: &mut Rng) -> &'static str {
    match random.u8(..200) {
        0 => "\n",
        1 => "\r",
        2 => "\r\r\n",
        3 => " \r\n",
        _ => "\r\n",
    }
}

fn informational(bytes: &mut Vec<u8>, random: &mut Rng) {
    let status = pick(
        random,
        &["100 Continue", "103 Early Hints", "102 x", "199 "],
    );
    bytes.extend(format!("HTTP/1.1 {status}\r\n").bytes());
    if one_in(3, random) {
        bytes.extend(b"Link: </x>\r\nContent-Length: 3\r\n");
    }
    bytes.extend(line_end(random).bytes());
}

fn final_response(bytes: &mut Vec<u8>, random: &mut Rng) {
    let version = if one_in(6, random) {
        pick(random, &VERSIONS)
    } else {
        "HTTP/1.1"
    };
    let status = if one_in(3, random) {
        pick(random, &STATUSES)
    } else {
        "200 OK"
    };
    let body = body(random);
    let mut fields: Vec<String> = Vec::new();
    for _ in 0..random.usize(..4) {
        let odd = if one_in(2, random) { FIELDS.len() } else { 9 };
        fields.push(pick(random, &FIELDS[..odd]).to_owned());
    }
    let coded = match random.u8(..10) {
        0..4 => {
            fields.push(length(body.len(), random));
            body
        }
        4..8 => {
            fields.push(coding(random));
            chunked(&body, random)
        }
        8 => {
            fields.extend([length(body.len(), random), coding(random)]);
            chunked(&body, random)
        }
        _ => body,
    };
    random.shuffle(&mut fields);
    bytes.extend(format!("{version} {status}{}", line_end(random)).bytes());
    for field in fields {
        // Latin-1, as many servers send it.
        bytes.extend(field.chars().map(|letter| letter as u32 as u8));
        bytes.extend(line_end(random).bytes());
    }
    bytes.extend(line_end(random).bytes());
    bytes.extend(coded);
    if one_in(10, random) {
        bytes.extend_from_slice(TOKENS[random.usize(..TOKENS.len())]);
    }
}

fn body(random: &mut Rng) -> Vec<u8> {
    let length = match random.u8(..40) {
        0..8 => 0,
        8 => random.usize(..100_000),
        _ => random.usize(..80),
    };
    let mut body: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
    if one_in(4, random) {
        let at = random.usize(..=body.len());
        body.splice(at..at, TOKENS[random.usize(..TOKENS.len())].iter().copied());
    }
    body
}

fn length(length: usize, random: &mut Rng) -> String {
    let length = match random.u8(..12) {
        0 => length.saturating_sub(1),
        1 => length + 1,
        _ => length,
    };
    let form = if one_in(3, random) {
        pick(random, &LENGTHS)
    } else {
        "Content-Length: {}"
    };
    form.replace("{}", &length.to_string())
}

fn coding(random: &mut Rng) -> String {
    if one_in(3, random) {
        pick(random, &CODINGS).to_owned()
    } else {
        "Transfer-Encoding: chunked".to_owned()
    }
}

fn chunked(mut body: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let odd = one_in(2, random);
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(random.usize(1..=body.len()));
        size_line(&mut bytes, chunk.len(), odd, random);
        bytes.extend_from_slice(chunk);
        bytes.extend(if odd { line_end(random) } else { "\r\n" }.bytes());
        body = rest;
    }
    if !one_in(20, random) {
        size_line(&mut bytes, 0, odd, random);
        if one_in(4, random) {
            bytes.extend(pick(random, if odd { &TRAILERS } else { &TRAILERS[..2] }).bytes());
        }
        bytes.extend(if odd { line_end(random) } else { "\r\n" }.bytes());
    }
    bytes
}

fn size_line(bytes: &mut Vec<u8>, size: usize, odd: bool, random: &mut Rng) {
    let size = match random.u8(..if odd { 16 } else { 3 }) {
        0 => format!("{size:X}"),
        1 => format!("00{size:x}"),
        3 => format!("0x{size:x}"),
        4 => format!(" {size:x}"),
        5 => format!("{:x}", size + 1),
        6 if one_in(4, random) => "f".repeat(random.usize(15..18)),
        _ => format!("{size:x}"),
    };
    bytes.extend(size.bytes());
    if odd {
        let long = format!(";{}", "e".repeat(random.usize(4000..4200)));
        bytes.extend(
            if one_in(40, random) {
                &long
            } else {
                pick(random, &EXTENSIONS)
            }
            .bytes(),
        );
        bytes.extend(line_end(random).bytes());
    } else {
        bytes.extend(b"\r\n");
    }
}

/// Applies one mutation.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Rng) {
    let end = bytes.len();
    // Half of all mutations are in the head, which matters most.
    let near = if random.bool() { end } else { end.min(120) };
    let from = random.usize(..=near);
    let to = from + random.usize(..=(end - from).min(40));
    match random.u8(..8) {
        0 if from < end => bytes[from] ^= 1 << random.u8(..8),
        1 if from < end => bytes[from] = random.u8(..),
        2 | 3 => drop(bytes.splice(
            from..from,
            TOKENS[random.usize(..TOKENS.len())].iter().copied(),
        )),
        4 => drop(bytes.drain(from..to)),
        5 => {
            let again = bytes[from..to].to_vec();
            drop(bytes.splice(to..to, again));
        }
        6 => bytes.truncate(from),
        _ => drop(bytes.splice(
            from..to,
            TOKENS[random.usize(..TOKENS.len())].iter().copied(),
        )),
    }
}

/// Returns random offsets at which a response is split into pieces.
pub fn cuts(bytes: &[u8], random: &mut Rng) -> Vec<usize> {
    if bytes.len() < 2 {
        return Vec::new();
    }
    let mut cuts: Vec<usize> = match random.u8(..6) {
        0 if bytes.len() < 300 => (1..bytes.len()).collect(),
        1 => (1..bytes.len())
            .filter(|&at| bytes[at - 1] == b'\r' || bytes[at] == b'\n')
            .collect(),
        2 => (0..random.usize(1..6))
            .map(|_| random.usize(1..bytes.len()))
            .collect(),
        _ => Vec::new(),
    };
    cuts.sort_unstable();
    cuts.dedup();
    cuts.truncate(300);
    cuts
}

/// Splits bytes at these offsets.
pub fn pieces(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut start = 0;
    let ends = cuts.iter().copied().chain([bytes.len()]);
    ends.map(|end| bytes[std::mem::replace(&mut start, end)..end].to_vec())
        .collect()
}
