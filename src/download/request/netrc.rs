//! Parser of netrc files, compatible with curl.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::download::http::{BasicAuth, BasicAuthError};

/// Entries of a netrc file. `Debug` prints only their number.
///
/// The file may contain entries of many programs and hosts. Therefore no file is invalid: unknown
/// words are skipped, and only the entry that a request needs is checked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Netrc(Vec<Entry>);

#[derive(Clone, Default, PartialEq, Eq)]
struct Entry {
    /// Host name, with a port if the entry applies to that port only; `None` for `default`.
    machine: Option<String>,
    user: String,
    password: String,
}

impl Netrc {
    /// Parses a file in UTF-8, with or without a byte order mark, or else in ISO-8859-1.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::from_text(text),
            Err(_) => Self::from_text(&bytes.iter().copied().map(char::from).collect::<String>()),
        }
    }

    /// Parses `machine NAME` or `default`, followed by `login`, `password` and `account` with a
    /// value each, separated by whitespace; the words may be in upper case. A value may be quoted
    /// with `"…"`, where `\` escapes the next character. `#` before a word starts a comment.
    /// Macros (`macdef`) are skipped.
    fn from_text(text: &str) -> Self {
        let mut words = Words {
            lines: text.trim_start_matches('\u{feff}').lines(),
            rest: "",
        };
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(word) = words.keyword() {
            let word = word.to_ascii_lowercase();
            match word.as_str() {
                "machine" => entries.push(Entry {
                    machine: Some(words.value()),
                    ..Entry::default()
                }),
                "default" => entries.push(Entry::default()),
                "macdef" => words.skip_macro(),
                "login" | "password" | "account" => {
                    let value = words.value();
                    match (word.as_str(), entries.last_mut()) {
                        ("login", Some(entry)) => entry.user = value,
                        ("password", Some(entry)) => entry.password = value,
                        // `account` is only used by FTP.
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Self(entries)
    }

    /// Returns the credentials of the first entry for the host of `url`, ignoring case, and for
    /// its port if the entry has one. If `user` is given, the entry must have that login.
    ///
    /// # Errors
    ///
    /// [`BasicAuthError`] if they cannot be sent.
    pub(crate) fn of_url(
        &self,
        url: &Url,
        user: Option<&str>,
    ) -> Result<Option<BasicAuth>, BasicAuthError> {
        self.find(|entry| {
            let machine = entry.machine.as_deref();
            machine.is_some_and(|machine| is_host_of(machine, url))
                && user.is_none_or(|user| user == entry.user)
        })
    }

    /// Returns the credentials of the `default` entry.
    ///
    /// # Errors
    ///
    /// [`BasicAuthError`] if they cannot be sent.
    pub(crate) fn of_default(&self) -> Result<Option<BasicAuth>, BasicAuthError> {
        self.find(|entry| entry.machine.is_none())
    }

    fn find(
        &self,
        is_wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Option<BasicAuth>, BasicAuthError> {
        let found = self.0.iter().find(|entry| is_wanted(entry));
        found
            .map(|entry| BasicAuth::new(&entry.user, &entry.password))
            .transpose()
    }
}

/// Returns whether `HOST` or `HOST:PORT` is that of `url`. IPv6 addresses have brackets only with a
/// port.
fn is_host_of(machine: &str, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let is_host = |name: &str| {
        name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(host.trim_matches(['[', ']']))
    };
    let with_port = machine.rsplit_once(':').and_then(|(name, port)| {
        let port: u16 = port.parse().ok()?;
        Some(is_host(name) && url.port_or_known_default() == Some(port))
    });
    is_host(machine) || with_port == Some(true)
}

impl fmt::Debug for Netrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netrc({} entries)", self.0.len())
    }
}

impl FromStr for Netrc {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from_text(text))
    }
}

struct Words<'a> {
    lines: std::str::Lines<'a>,
    rest: &'a str,
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

    /// Returns the next value; empty at the end of the file.
    fn value(&mut self) -> String {
        match self.start() {
            None => String::new(),
            Some(start) if start.starts_with('"') => self.quoted(),
            Some(_) => self.plain().to_owned(),
        }
    }

    /// Returns a quoted value. Without its end it is the rest of the line.
    fn quoted(&mut self) -> String {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return value;
                }
                '\\' => value.extend(chars.next().map(|(_, plain)| plain)),
                c => value.push(c),
            }
        }
        self.rest = "";
        value
    }

    /// Skips a macro, which ends with an empty line.
    fn skip_macro(&mut self) {
        self.rest = "";
        self.lines.by_ref().find(|line| line.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> BasicAuth {
        text.parse().unwrap()
    }

    fn of_machine(netrc: &Netrc, host: &str) -> Option<BasicAuth> {
        let url = format!("http://{host}/").parse().unwrap();
        netrc.of_url(&url, None).unwrap()
    }

    #[track_caller]
    fn finds(text: &str, host: &str, wanted: &str) {
        let netrc = Netrc::from_text(text);
        assert_eq!(
            of_machine(&netrc, host),
            Some(login(wanted)),
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
        let netrc = Netrc::from_text(text);
        assert_eq!(of_machine(&netrc, "bad"), None);
        assert_eq!(netrc.of_default(), Ok(Some(login("g:h"))));
        assert_eq!(format!("{netrc:?}"), "Netrc(5 entries)");
    }

    #[test]
    fn entry_with_a_port_applies_to_that_port() {
        let text = "machine a:8080 login b password c machine a login d password e\n\
                    machine ::1 login f password g machine [::1]:8 login h password i";
        finds(text, "a:8080", "b:c");
        finds(text, "a:8081", "d:e");
        finds(text, "a", "d:e");
        finds(text, "[::1]:9", "f:g");
        finds("machine a:80 login b password c", "a", "b:c");
        finds("machine [::1]:8 login h password i", "[::1]:8", "h:i");
        let netrc = Netrc::from_text("machine a:8080 login b password c");
        assert_eq!(of_machine(&netrc, "a"), None);
    }

    #[test]
    fn entry_is_selected_by_its_login() {
        let netrc = Netrc::from_text("machine a login b password c machine a login d password e");
        let url: Url = "http://a/".parse().unwrap();
        assert_eq!(netrc.of_url(&url, Some("d")), Ok(Some(login("d:e"))));
        assert_eq!(netrc.of_url(&url, Some("x")), Ok(None));
    }

    #[test]
    fn file_without_entries_is_empty() {
        for text in [
            "",
            "\n \n# only a comment",
            "macdef x\ny",
            "login a",
            "word",
        ] {
            let netrc = Netrc::from_text(text);
            assert_eq!(netrc, Netrc::default(), "{text:?}");
        }
    }

    #[test]
    fn other_words_and_encodings_are_accepted() {
        let good = "machine a login b password c";
        for text in [
            "\u{feff}machine a login b password c",
            "MACHINE a Login b PASSWORD c",
            "machine x method y machine a login b port 5 password c",
            "login z machine a login b password \"c\nmachine d",
            "protocol https\nmachine a\nsecret\nlogin b\npassword c\n",
        ] {
            finds(text, "a", "b:c");
        }
        let latin = Netrc::from_bytes(b"machine a login b password \xe9");
        assert_eq!(of_machine(&latin, "a"), Some(login("b:é")));
        let cut = Netrc::from_bytes(format!("{good} machine d login").as_bytes());
        assert_eq!(of_machine(&cut, "d"), Some(login(":")));
    }

    #[test]
    fn only_the_needed_entry_is_checked() {
        let netrc = Netrc::from_text("machine a login b:c\nmachine d login e password f");
        assert_eq!(of_machine(&netrc, "d"), Some(login("e:f")));
        let error = netrc.of_url(&"http://a/".parse().unwrap(), None);
        assert_eq!(error, Err(BasicAuthError::ColonInUser));
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
            let netrc = Netrc::from_text(&text);
            for host in ["h0", "h1", "H2"] {
                let first = entries
                    .iter()
                    .find(|(machine, _)| machine.eq_ignore_ascii_case(host));
                let wanted = first.map(|(_, login)| login.clone());
                assert_eq!(of_machine(&netrc, host), wanted, "seed {seed}: {text:?}");
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
