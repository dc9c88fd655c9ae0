//! Parser of netrc files, compatible with curl.

use std::fmt;
use std::str::FromStr;

use crate::download::http::BasicAuth;

/// Entries of a netrc file. `Debug` prints only their number.
#[derive(Clone, PartialEq, Eq)]
pub struct Netrc(Vec<Entry>);

/// Syntax error in a netrc file. It contains only the line number, because words may be
/// passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct NetrcError {
    line: usize,
    problem: &'static str,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// Host name; `None` for `default`.
    machine: Option<String>,
    login: BasicAuth,
}

impl Netrc {
    /// Returns the credentials of the first entry for `host`, ignoring case.
    pub(crate) fn of_machine(&self, host: &str) -> Option<&BasicAuth> {
        self.find(|machine| machine.is_some_and(|machine| machine.eq_ignore_ascii_case(host)))
    }

    /// Returns the credentials of the `default` entry.
    pub(crate) fn of_default(&self) -> Option<&BasicAuth> {
        self.find(|machine| machine.is_none())
    }

    fn find(&self, wanted: impl Fn(Option<&str>) -> bool) -> Option<&BasicAuth> {
        let found = self.0.iter().find(|entry| wanted(entry.machine.as_deref()));
        found.map(|entry| &entry.login)
    }
}

impl fmt::Debug for Netrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netrc({} entries)", self.0.len())
    }
}

impl FromStr for Netrc {
    type Err = NetrcError;

    /// Parses `machine NAME` or `default`, followed by `login`, `password` and `account` with a
    /// value each, separated by whitespace. A value may be quoted with `"…"`, where `\` escapes
    /// the next character. `#` before a word starts a comment. Macros (`macdef`) are skipped.
    fn from_str(text: &str) -> Result<Self, NetrcError> {
        let mut words = Words {
            lines: text.lines(),
            rest: "",
            line: 0,
        };
        let mut entries = Vec::new();
        let mut open: Option<Draft> = None;
        while let Some(word) = words.keyword() {
            match word {
                "machine" => {
                    let machine = Some(words.value()?);
                    entries.extend(close(open.replace(Draft::new(machine)), &words)?);
                }
                "default" => entries.extend(close(open.replace(Draft::new(None)), &words)?),
                "macdef" => words.skip_macro(),
                "login" | "password" | "account" => {
                    let value = words.value()?;
                    let draft = open
                        .as_mut()
                        .ok_or_else(|| words.error("no machine before this word"))?;
                    draft.set(word, value);
                }
                _ => return Err(words.error("unknown keyword")),
            }
        }
        entries.extend(close(open, &words)?);
        Ok(Self(entries))
    }
}

/// Incomplete entry.
#[derive(Default)]
struct Draft {
    machine: Option<String>,
    user: String,
    password: String,
}

impl Draft {
    fn new(machine: Option<String>) -> Self {
        Self {
            machine,
            ..Self::default()
        }
    }

    fn set(&mut self, word: &str, value: String) {
        match word {
            "login" => self.user = value,
            "password" => self.password = value,
            // `account` is only used by FTP.
            _ => {}
        }
    }
}

fn close(draft: Option<Draft>, words: &Words<'_>) -> Result<Option<Entry>, NetrcError> {
    let Some(Draft {
        machine,
        user,
        password,
    }) = draft
    else {
        return Ok(None);
    };
    match BasicAuth::new(&user, &password) {
        Ok(login) => Ok(Some(Entry { machine, login })),
        Err(_) => {
            Err(words.error("the previous entry has a login or password that HTTP cannot send"))
        }
    }
}

struct Words<'a> {
    lines: std::str::Lines<'a>,
    rest: &'a str,
    line: usize,
}

impl<'a> Words<'a> {
    /// Advances to the next word, in this line or a later one.
    fn start(&mut self) -> Option<&'a str> {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if !self.rest.is_empty() {
                return Some(self.rest);
            }
            self.rest = self.lines.next()?;
            self.line += 1;
        }
    }

    fn keyword(&mut self) -> Option<&'a str> {
        while self.start()?.starts_with('#') {
            self.rest = "";
        }
        Some(self.plain())
    }

    fn plain(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c: char| c.is_ascii_whitespace())
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn value(&mut self) -> Result<String, NetrcError> {
        match self.start() {
            None => Err(self.error("missing value")),
            Some(start) if start.starts_with('"') => self.quoted(),
            Some(_) => Ok(self.plain().to_owned()),
        }
    }

    fn quoted(&mut self) -> Result<String, NetrcError> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, plain)| plain)),
                c => value.push(c),
            }
        }
        Err(self.error("unclosed quotation mark"))
    }

    /// Skips a macro, which ends with an empty line.
    fn skip_macro(&mut self) {
        self.rest = "";
        for line in self.lines.by_ref() {
            self.line += 1;
            if line.is_empty() {
                break;
            }
        }
    }

    fn error(&self, problem: &'static str) -> NetrcError {
        NetrcError {
            line: self.line,
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> BasicAuth {
        text.parse().unwrap()
    }

    #[track_caller]
    fn finds(text: &str, host: &str, wanted: &str) {
        let netrc: Netrc = text.parse().unwrap();
        assert_eq!(
            netrc.of_machine(host),
            Some(&login(wanted)),
            "{host} in {text:?}"
        );
    }

    #[test]
    fn first_entry_of_a_machine_is_used() {
        let text = "machine a login b password c\nmachine a login x password y\nmachine A.B\n\t\
                    login \"d \\\" e\" # comment\n# machine z\n  account q\n\n  password #1\n\
                    macdef init\nmachine bad\nlogin bad\n\nmachine e password f\n\
                    default login g password h";
        finds(text, "a", "b:c");
        finds(text, "a.b", "d \" e:#1");
        finds(text, "E", ":f");
        let netrc: Netrc = text.parse().unwrap();
        assert_eq!(netrc.of_machine("bad"), None);
        assert_eq!(netrc.of_default(), Some(&login("g:h")));
        assert_eq!(format!("{netrc:?}"), "Netrc(5 entries)");
    }

    #[test]
    fn file_without_entries_is_empty() {
        for text in ["", "\n \n# only a comment", "macdef x\ny"] {
            let netrc: Netrc = text.parse().unwrap();
            assert_eq!(
                (netrc.of_machine("a"), netrc.of_default()),
                (None, None),
                "{text:?}"
            );
        }
    }

    #[test]
    fn syntax_error_has_a_line_and_no_secret() {
        for (text, wanted) in [
            ("login a", "line 1: no machine before this word"),
            ("machine a\n\nsecret", "line 3: unknown keyword"),
            ("machine a login", "line 1: missing value"),
            (
                "machine a password \"secret\n",
                "line 1: unclosed quotation mark",
            ),
            (
                "machine a login b:c\n",
                "line 1: the previous entry has a login or password that",
            ),
        ] {
            let error = text.parse::<Netrc>().unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn random_layouts_are_parsed() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let mut text = String::new();
            let mut entries = Vec::new();
            for number in 0..random.usize(1..5) {
                let [user, password] = [value(&mut random, ":"), value(&mut random, "")];
                let machine = format!("h{}", random.usize(..3));
                text += [
                    " ",
                    "\n",
                    "\t\n# machine h0 login x\n",
                    "\nmacdef m\nmachine h1\n\n",
                ][random.usize(..4)];
                let blank = [" ", "\t", "\n ", " \r\n"][random.usize(..4)];
                let words = [
                    "machine",
                    &machine,
                    "login",
                    &user.1,
                    "password",
                    &password.1,
                ];
                text += &words.join(blank);
                text += if number % 2 == 0 { " account x" } else { "" };
                entries.push((machine, BasicAuth::new(&user.0, &password.0).unwrap()));
            }
            let netrc: Netrc = text
                .parse()
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for host in ["h0", "h1", "H2"] {
                let first = entries
                    .iter()
                    .find(|(machine, _)| machine.eq_ignore_ascii_case(host));
                let wanted = first.map(|(_, login)| login);
                assert_eq!(netrc.of_machine(host), wanted, "seed {seed}: {text:?}");
            }
        }
    }

    /// Returns a random value without some characters, and a way to write it.
    fn value(random: &mut fastrand::Rng, without: &str) -> (String, String) {
        let letters = (0..random.usize(1..9)).map(|_| random.char(' '..='\u{ff}'));
        let value: String = letters
            .filter(|c| !c.is_control() && !without.contains(*c))
            .collect();
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let is_plain = !value.is_empty() && !value.starts_with('"') && !value.contains(' ');
        let written = if is_plain && random.bool() {
            value.clone()
        } else {
            format!("\"{quoted}\"")
        };
        (value, written)
    }
}
