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
