//! Bytes from strangers, made safe to show on a terminal or in a log line.

use std::fmt;

/// The number of characters after which [`Escaped`] cuts.
pub const MAX_CHARS: usize = 200;

/// Shows bytes of unknown origin as text that can neither move a cursor, nor break a line, nor
/// reverse its direction.
///
/// Control characters (C0, DEL, C1), bidirectional controls and line separators come out as
/// `\n`, `\x1b` or `\u{202e}`, bytes that are not UTF-8 as `\xff`, a backslash as `\\`. Invisible
/// characters, such as the zero-width joiner of emoji, come out as `\u{200d}`: terminals disagree
/// about the width of what they join.
/// After [`MAX_CHARS`] characters the text is truncated; the number of omitted bytes follows.
///
/// ```
/// use myapp::internals::Escaped;
///
/// assert_eq!(Escaped(b"hi\x1b[2J\xff\n").to_string(), r"hi\x1b[2J\xff\n");
/// ```
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(plain) = self.as_plain() {
            return f.write_str(plain);
        }
        let mut shown = 0;
        let mut used = 0;
        // Four bytes a character is the most that UTF-8 takes: what lies behind is never shown.
        let head = &self.0[..self.0.len().min(MAX_CHARS * 4)];
        for chunk in head.utf8_chunks() {
            for c in chunk.valid().chars() {
                if shown == MAX_CHARS {
                    return cut(f, self.0.len() - used);
                }
                write_char(f, c)?;
                shown += 1;
                used += c.len_utf8();
            }
            for byte in chunk.invalid() {
                if shown == MAX_CHARS {
                    return cut(f, self.0.len() - used);
                }
                write!(f, "\\x{byte:02x}")?;
                shown += 1;
                used += 1;
            }
        }
        if used < self.0.len() {
            cut(f, self.0.len() - used)
        } else {
            Ok(())
        }
    }
}

impl Escaped<'_> {
    /// The text, where it is shown as it is: most is, and then goes in one piece.
    fn as_plain(&self) -> Option<&str> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
        let plain = self.0.len() <= MAX_CHARS && self.0.iter().all(is_plain);
        if plain {
            std::str::from_utf8(self.0).ok()
        } else {
            None
        }
    }
}

fn cut(f: &mut fmt::Formatter<'_>, bytes: usize) -> fmt::Result {
    write!(f, "… ({bytes} bytes more)")
}

fn write_char(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    use fmt::Write as _;
    match c {
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c)),
        c if is_unsafe(c) || is_invisible(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Whether a character has no width of its own, but can change that of its neighbours or hide text:
/// zero-width and joining characters, fillers, variation selectors and tags.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character can do more to a terminal or a log line than stand there: control
/// characters, line and paragraph separators, bidirectional controls (UAX #9).
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(bytes: &[u8], text: &str) {
        assert_eq!(Escaped(bytes).to_string(), text);
    }

    #[test]
    fn harmless_text_is_unchanged() {
        shows(b"", "");
        shows(
            "¡Hola, servidor! \u{1f600}".as_bytes(),
            "¡Hola, servidor! \u{1f600}",
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        shows(b"\x1b]0;x\x07", r"\x1b]0;x\x07");
        shows(b"a\r\n\tb\\", r"a\r\n\tb\\");
        shows(b"\x00\x7f", r"\x00\x7f");
        shows(
            "\u{85}\u{9b}\u{202e}\u{2028}\u{2066}".as_bytes(),
            r"\u{85}\u{9b}\u{202e}\u{2028}\u{2066}",
        );
    }

    #[test]
    fn invisible_characters_are_escaped() {
        shows(
            "\u{1f468}\u{200d}\u{1f469}\u{fe0f}\u{e0067}\u{200b}\u{feff}".as_bytes(),
            "\u{1f468}\\u{200d}\u{1f469}\\u{fe0f}\\u{e0067}\\u{200b}\\u{feff}",
        );
    }

    #[test]
    fn invalid_utf8_is_shown_in_hex() {
        shows(b"a\xffb\xc3", r"a\xffb\xc3");
    }

    #[test]
    fn long_text_is_truncated_and_the_rest_counted() {
        let text = Escaped(&[b'x'; 1_000_000]).to_string();
        assert_eq!(text, format!("{}… (999800 bytes more)", "x".repeat(200)));
        shows(&[b'x'; 200], &"x".repeat(200));
        let wide = "\u{1f600}".repeat(200);
        shows(wide.as_bytes(), &wide);
        shows(
            &[0xff; 201],
            &format!("{}… (1 bytes more)", r"\xff".repeat(200)),
        );
    }
}
