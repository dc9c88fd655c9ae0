//! Tests of the transform.

use super::*;

const PLAIN: Display = Display {
    numbers: Numbers::None,
    squeeze_blank: false,
    ends: false,
    tabs: false,
    nonprinting: false,
};

/// Checks the output for `input`, in one chunk and split at each position.
#[track_caller]
fn check(display: Display, input: &[u8], expected: &[u8]) {
    for split in 0..=input.len() {
        let mut transform = Transform::new(display);
        let mut output = Vec::new();
        transform.push(&input[..split], &mut output);
        transform.push(&input[split..], &mut output);
        transform.finish(&mut output);
        let output = String::from_utf8_lossy(&output);
        let expected = String::from_utf8_lossy(expected);
        assert_eq!(output, expected, "split at {split}");
    }
}

#[test]
fn plain_display_changes_nothing() {
    check(PLAIN, b"a\r\n\n\n\t\xff\0", b"a\r\n\n\n\t\xff\0");
}

#[test]
fn lines_are_numbered_even_without_final_newline() {
    let all = Display {
        numbers: Numbers::All,
        ..PLAIN
    };
    check(all, b"a\n\nb", b"     1\ta\n     2\t\n     3\tb");
    let non_blank = Display {
        numbers: Numbers::NonBlank,
        ..PLAIN
    };
    check(non_blank, b"\na\n\nb\n", b"\n     1\ta\n\n     2\tb\n");
}

#[test]
fn adjacent_empty_lines_are_squeezed() {
    let squeeze = Display {
        squeeze_blank: true,
        ..PLAIN
    };
    check(squeeze, b"\n\n\na\n\n\n\nb\n\n", b"\na\n\nb\n\n");
}

#[test]
fn carriage_return_is_escaped_before_a_newline_only() {
    let ends = Display {
        ends: true,
        ..PLAIN
    };
    check(ends, b"a\r\n\rb\r\r\n\r", b"a^M$\n\rb\r^M$\n\r");
    check(ends, b"\r\n", b"^M$\n");
}

#[test]
fn control_and_high_bytes_are_escaped() {
    let all = Display {
        ends: true,
        tabs: true,
        nonprinting: true,
        ..PLAIN
    };
    check(
        all,
        b"\0\t\r\x1f\x7f\x80\x89\x8a\x9f\xa0\xfe\xff~\n",
        b"^@^I^M^_^?M-^@M-^IM-^JM-^_M- M-~M-^?~$\n",
    );
    let no_tabs = Display {
        nonprinting: true,
        ..PLAIN
    };
    check(no_tabs, b"\t\x89", b"\tM-^I");
    let tabs = Display {
        tabs: true,
        ..PLAIN
    };
    check(tabs, b"\ta\t\x01", b"^Ia^I\x01");
}

#[test]
fn longest_output_of_a_chunk_fits_into_the_buffer() {
    let all = Display {
        numbers: Numbers::All,
        ends: true,
        ..PLAIN
    };
    let mut transform = Transform::new(all);
    transform.number = LineNumber::longest();
    let mut output = Vec::new();
    transform.push(b"\r", &mut output);
    output.clear();
    transform.push(&[b'\n'; CHUNK_LEN], &mut output);
    // The first line has no number, as it was written before the carriage return.
    let expected = MAX_PENDING_LEN + CHUNK_LEN * MAX_EXPANSION - LineNumber::MAX_LEN;
    assert_eq!(output.len(), expected);
}

/// Returns the output for `input`, byte by byte.
fn reference(display: Display, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut lines = 0;
    let mut write_number = |out: &mut Vec<u8>| {
        lines += 1;
        out.extend(format!("{lines:6}\t").bytes());
    };
    let mut is_line_start = true;
    let mut blank_lines = 0;
    for (at, &byte) in input.iter().enumerate() {
        if byte == b'\n' {
            blank_lines = if is_line_start { blank_lines + 1 } else { 0 };
            is_line_start = true;
            if blank_lines > 1 && display.squeeze_blank {
                continue;
            }
            if blank_lines > 0 && display.numbers == Numbers::All {
                write_number(&mut out);
            }
            out.extend(if display.ends { &b"$\n"[..] } else { b"\n" });
            continue;
        }
        if is_line_start && display.numbers != Numbers::None {
            write_number(&mut out);
        }
        is_line_start = false;
        let ends_line = input.get(at + 1) == Some(&b'\n');
        match byte {
            b'\t' if display.tabs => out.extend(b"^I"),
            b'\r' if display.ends && ends_line => out.extend(b"^M"),
            b'\t' => out.push(byte),
            _ if display.nonprinting => {
                let low = byte % 128;
                out.extend(if byte < 128 { &b""[..] } else { b"M-" });
                match low {
                    0..=31 => out.extend([b'^', low + 64]),
                    32..=126 => out.push(low),
                    _ => out.extend(b"^?"),
                }
            }
            _ => out.push(byte),
        }
    }
    out
}

/// Returns text with runs of newlines, printable bytes, tabs, carriage returns and any others.
fn random_text(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.usize(..100) {
        let max_len = random.choice([3, 20, 200]).unwrap();
        let len = random.usize(..max_len);
        match random.u8(..6) {
            0 => text.extend(vec![b'\n'; len]),
            1 => text.extend(vec![b'\t'; len % 4]),
            2 => text.extend(b"\r\n".repeat(len % 8)),
            3 => text.extend(std::iter::repeat_with(|| random.u8(..)).take(len)),
            _ => text.extend(std::iter::repeat_with(|| random.u8(b' '..0x7f)).take(len)),
        }
    }
    text
}

#[test]
fn random_text_equals_the_reference() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let numbers = [Numbers::None, Numbers::All, Numbers::NonBlank];
    for round in 0..2000 {
        let display = Display {
            numbers: random.choice(numbers).unwrap(),
            squeeze_blank: random.bool(),
            ends: random.bool(),
            tabs: random.bool(),
            nonprinting: random.bool(),
        };
        let text = random_text(&mut random);
        let mut transform = Transform::new(display);
        let mut output = Vec::new();
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (part, others) = rest.split_at(random.usize(..=rest.len()));
            transform.push(part, &mut output);
            rest = others;
        }
        transform.finish(&mut output);
        let expected = reference(display, &text);
        let difference = output.iter().zip(&expected).position(|(a, b)| a != b);
        assert!(
            output == expected,
            "seed {seed}, round {round}: {display:?} differs at {difference:?}"
        );
    }
}
