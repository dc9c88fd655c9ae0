//! File name of a `Content-Disposition` field (RFC 6266 section 4, RFC 8187).

use percent_encoding::percent_decode_str;

use crate::download::store::encoded_word::{decode_words, latin_1};

/// Returns the file name of a field value, decoded but not made safe. `filename*` takes precedence
/// over `filename`, which is not percent-decoded (RFC 6266 section 4.3). Servers also send encoded
/// words, as in mail, and omit the disposition type.
pub(crate) fn file_name(value: &[u8]) -> Option<String> {
    // Servers send unencoded UTF-8, although RFC 6266 specifies ISO 8859-1.
    let text = match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => latin_1(value),
    };
    let mut plain = None;
    let mut extended = None;
    let mut rest = match text.find([';', '='])? {
        end if text[end..].starts_with(';') => &text[end + 1..],
        _ => &text,
    };
    while let Some((name, after)) = rest.split_once('=') {
        let (value, left) = parameter(after.trim_start());
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" if plain.is_none() => plain = decode_words(&value),
            "filename*" if extended.is_none() => extended = decode(&value),
            _ => {}
        }
        rest = left;
    }
    extended.or(plain)
}

/// Returns the value at the start of `text`, a token or a quoted string, and the text after its
/// `;`.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = text.split_once(';').unwrap_or((text, ""));
        return (token.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => {
                let rest = &quoted[at + 1..];
                return (value, rest.split_once(';').map_or("", |(_, rest)| rest));
            }
            // Some servers send Windows paths unescaped, so only these two are escapes.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                value.extend(letters.next().map(|(_, letter)| letter));
            }
            letter => value.push(letter),
        }
    }
    (value, "")
}

/// Decodes an extended value such as `UTF-8'en'na%C3%AFve` (RFC 8187 section 3.2).
fn decode(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(latin_1(&bytes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_name(value: &str, name: &str) {
        assert_eq!(
            file_name(value.as_bytes()).as_deref(),
            Some(name),
            "{value}"
        );
    }

    #[test]
    fn name_is_a_token_or_quoted() {
        assert_name("attachment; filename=example.txt", "example.txt");
        assert_name("Attachment;FILENAME = \"a b; c.txt\" ; x=y", "a b; c.txt");
        assert_name(r#"attachment; filename="a \"b\" \\ c""#, r#"a "b" \ c"#);
        assert_name(r#"attachment; filename="C:\dir\f.txt""#, r"C:\dir\f.txt");
        assert_name("inline; filename=\"100%25.txt\"", "100%25.txt");
        assert_name("attachment; filename=\"naïve\"", "naïve");
        assert_name("attachment; filename=\"open", "open");
        assert_name("filename=x", "x");
        assert_name("FileName = \"a;b=c\"", "a;b=c");
        assert_eq!(
            file_name(b"attachment; filename=na\xefve").as_deref(),
            Some("naïve")
        );
    }

    #[test]
    fn extended_name_takes_precedence() {
        assert_name(
            "attachment; filename=\"x\"; filename*=UTF-8''na%C3%AFve%20f",
            "naïve f",
        );
        assert_name("attachment; filename*=utf-8'en'%e2%82%ac; filename=x", "€");
        assert_name("attachment; filename*=iso-8859-1''%A3; filename=x", "£");
    }

    #[test]
    fn encoded_words_are_decoded() {
        assert_name(
            "attachment; filename=\"=?UTF-8?B?w6kgcnVu?= =?utf-8?q?_=2Etxt?=\"",
            "é run .txt",
        );
        assert_name("attachment; filename==?ISO-8859-1?Q?=E9?=; x=y", "é");
        let unknown = "attachment; filename=\"=?koi8-r?B?4Q==?=\"";
        assert_eq!(file_name(unknown.as_bytes()), None);
    }

    #[test]
    fn undecodable_extended_name_is_ignored() {
        for extended in ["UTF-8''%ff", "koi8-r''x", "UTF-8'x", "x"] {
            assert_name(
                &format!("attachment; filename=x; filename*={extended}"),
                "x",
            );
        }
    }

    #[test]
    fn missing_name_is_none() {
        for value in ["", "attachment", "attachment; size=1", "x; ; =", "filename"] {
            assert_eq!(file_name(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_quoted_name_comes_back_whatever_it_holds() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..10_000 {
            let length = random.usize(1..20);
            let name: String = (0..length).map(|_| random.char(' '..)).collect();
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let value = format!("attachment; x=\"y\"; filename=\"{quoted}\"; z");
            let read = file_name(value.as_bytes());
            assert_eq!(read.as_deref(), Some(&name[..]), "seed {seed}");
            let noise: Vec<u8> = (0..length)
                .map(|_| b"a\"\\;=*' %"[random.usize(..9)])
                .collect();
            file_name(&noise);
        }
    }
}
