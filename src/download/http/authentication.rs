//! Responses to authentication challenges (RFC 9110 section 11): Basic (RFC 7617) and Digest
//! (RFC 7616, and RFC 2617 without `qop`).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http_auth::digest::{Algorithm, DigestClient, Qop};
use http_auth::{ChallengeParser, ChallengeRef, ParamValue, PasswordParams};

use super::basic_auth::BasicAuth;
use crate::escape::Escaped;

/// Names of the supported algorithms.
const ALGORITHMS: [&str; 6] = [
    "MD5",
    "MD5-sess",
    "SHA-256",
    "SHA-256-sess",
    "SHA-512-256",
    "SHA-512-256-sess",
];

/// Maximum number of remembered servers and idle sessions together.
const MAX_SESSIONS: usize = 256;

/// Maximum number of Digest responses to the challenges of one request: one, and one for a nonce
/// that became stale meanwhile.
const MAX_RESPONSES: usize = 2;

/// Use of user names and passwords.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordScheme {
    /// Basic in the first request to a server. Digest after a server has requested it.
    #[default]
    BasicFirst,
    /// Digest only: the password itself is never sent.
    DigestOnly,
}

/// Challenges of a response with status 401 or 407.
pub(in crate::download) struct Challenges {
    /// The strongest supported Digest challenge.
    digest: Option<DigestClient>,
    /// Schemes in their order, with the cause if a Digest challenge is not supported.
    offered: Vec<String>,
}

impl Challenges {
    /// Parses the values of `WWW-Authenticate` or `Proxy-Authenticate`.
    pub(in crate::download) fn parse<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut found = Self {
            digest: None,
            offered: Vec::new(),
        };
        for value in values {
            found.add(&String::from_utf8_lossy(value));
        }
        found
    }

    fn add(&mut self, value: &str) {
        for challenge in ChallengeParser::new(value) {
            let Ok(mut challenge) = challenge else {
                // A scheme with another syntax, such as the token of Negotiate.
                let scheme = value.split([' ', ',']).next().unwrap_or_default();
                self.offer(scheme);
                return;
            };
            if !challenge.scheme.eq_ignore_ascii_case("Digest") {
                self.offer(challenge.scheme);
                continue;
            }
            normalize_algorithm(&mut challenge);
            match DigestClient::try_from(&challenge) {
                Ok(client) => {
                    let best = self.digest.as_ref().map_or(0, strength);
                    if strength(&client) > best {
                        self.digest = Some(client);
                    }
                    self.offer("Digest");
                }
                Err(cause) => self.offer(&format!("Digest ({cause})")),
            }
        }
    }

    fn offer(&mut self, scheme: &str) {
        let scheme = Escaped(scheme.as_bytes()).to_string();
        if !scheme.is_empty() && !self.offered.contains(&scheme) {
            self.offered.push(scheme);
        }
    }

    /// Returns the names of the schemes if none of them can be used.
    pub(in crate::download) fn unsupported(&self, scheme: PasswordScheme) -> Option<String> {
        let is_usable = |offered: &String| {
            let is = |name: &str| offered.eq_ignore_ascii_case(name);
            is("Digest") || is("Bearer") || (is("Basic") && scheme == PasswordScheme::BasicFirst)
        };
        if self.offered.is_empty() || self.offered.iter().any(is_usable) {
            return None;
        }
        Some(self.offered.join(" or "))
    }
}

/// Writes the name of the algorithm as the crate expects it. Names of algorithms have no case
/// (RFC 2617 section 3.2.1 and RFC 5234 section 2.3).
fn normalize_algorithm(challenge: &mut ChallengeRef<'_>) {
    for (name, value) in &mut challenge.params {
        let given = value.as_escaped();
        let is_given = |known: &&&str| known.eq_ignore_ascii_case(given);
        if name.eq_ignore_ascii_case("algorithm")
            && let Some(known) = ALGORITHMS.iter().find(is_given)
            && let Ok(known) = ParamValue::try_from_escaped(known)
        {
            *value = known;
        }
    }
}

/// Order of the algorithms, from 1. A challenge that was sent first wins among equal ones
/// (RFC 7616 section 3.7).
fn strength(client: &DigestClient) -> u8 {
    match client.algorithm() {
        Algorithm::Md5 => 1,
        Algorithm::Sha256 => 2,
        Algorithm::Sha512Trunc256 => 3,
        _ => 0,
    }
}

/// Digest sessions by server and login. One request at a time uses a session, so that its nonce
/// counts arrive in order.
pub(in crate::download) struct DigestSessions<K>(Mutex<VecDeque<Entry<K>>>);

struct Entry<K> {
    server: K,
    login: BasicAuth,
    /// `None` marks a server that requires Digest.
    session: Option<DigestClient>,
}

impl<K: PartialEq + Clone> DigestSessions<K> {
    /// Starts the authentication of one request.
    pub(in crate::download) fn authenticate(
        &self,
        server: K,
        login: BasicAuth,
        scheme: PasswordScheme,
    ) -> Authentication<'_, K> {
        let mut entries = self.lock();
        let is_known = entries.iter().any(|entry| entry.is_for(&server, &login));
        let idle = entries
            .iter()
            .rposition(|entry| entry.session.is_some() && entry.is_for(&server, &login));
        let session = idle
            .and_then(|at| entries.remove(at))
            .and_then(|entry| entry.session);
        drop(entries);
        Authentication {
            sessions: self,
            is_from_cache: session.is_some(),
            session,
            server,
            login,
            sends_basic: scheme == PasswordScheme::BasicFirst && !is_known,
            responses: 0,
        }
    }

    /// Remembers that the server requires Digest.
    fn mark(&self, server: &K, login: &BasicAuth) {
        let is_mark = |entry: &Entry<K>| entry.session.is_none() && entry.is_for(server, login);
        if !self.lock().iter().any(is_mark) {
            self.add(Entry {
                server: server.clone(),
                login: login.clone(),
                session: None,
            });
        }
    }

    fn add(&self, entry: Entry<K>) {
        let mut entries = self.lock();
        if entries.len() == MAX_SESSIONS {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry<K>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: PartialEq> Entry<K> {
    fn is_for(&self, server: &K, login: &BasicAuth) -> bool {
        self.server == *server && self.login == *login
    }
}

impl<K> Default for DigestSessions<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> fmt::Debug for DigestSessions<K> {
    /// Omits the logins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestSessions").finish_non_exhaustive()
    }
}

/// Authentication of one request with a user name and a password. A session that was not rejected
/// is kept for later requests when it is dropped.
pub(in crate::download) struct Authentication<'a, K: PartialEq + Clone> {
    sessions: &'a DigestSessions<K>,
    server: K,
    login: BasicAuth,
    session: Option<DigestClient>,
    /// Whether the nonce is one of an earlier request.
    is_from_cache: bool,
    sends_basic: bool,
    /// Number of challenges that were responded to.
    responses: usize,
}

impl<K: PartialEq + Clone> Authentication<'_, K> {
    /// Returns the value of `Authorization` or `Proxy-Authorization` for a request without a body
    /// to this target, which is that of the request line. `None` before the first challenge.
    pub(in crate::download) fn value(&mut self, method: &str, target: &str) -> Option<String> {
        let Some(session) = &mut self.session else {
            return self.sends_basic.then(|| self.login.to_basic());
        };
        // The crate prefers the integrity of an empty body to `auth`, which servers support better.
        let body = (!(session.qop() & Qop::Auth)).then_some(&[][..]);
        let value = session.respond(&PasswordParams {
            username: self.login.user(),
            password: self.login.password(),
            uri: target,
            method,
            body,
        });
        // The nonce count is exhausted, or a value of the server cannot be sent back.
        value.inspect_err(|_| self.session = None).ok()
    }

    /// Processes the challenges of a response with status 401 or 407. Returns whether the request
    /// is to be repeated; if not, the login is rejected or the scheme not supported.
    pub(in crate::download) fn is_repeated_after(&mut self, challenges: Challenges) -> bool {
        let rejected = self.session.take();
        let Some(digest) = challenges.digest else {
            return false;
        };
        let was_fresh = rejected.is_some() && !self.is_from_cache;
        if (was_fresh && !digest.stale()) || self.responses == MAX_RESPONSES {
            return false;
        }
        self.sessions.mark(&self.server, &self.login);
        self.session = Some(digest);
        self.is_from_cache = false;
        self.sends_basic = false;
        self.responses += 1;
        true
    }
}

impl<K: PartialEq + Clone> Drop for Authentication<'_, K> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.add(Entry {
                server: self.server.clone(),
                login: self.login.clone(),
                session: Some(session),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = r#"Digest realm="r", nonce="n1", qop="auth""#;

    fn challenges(values: &[&str]) -> Challenges {
        Challenges::parse(values.iter().map(|value| value.as_bytes()))
    }

    fn authenticate<'a>(
        sessions: &'a DigestSessions<u8>,
        scheme: PasswordScheme,
    ) -> Authentication<'a, u8> {
        sessions.authenticate(1, "Mufasa:Circle of Life".parse().unwrap(), scheme)
    }

    /// Returns the value of a parameter in `Authorization`, without quotes.
    fn parameter(value: &str, name: &str) -> String {
        let found = value.split(", ").find_map(|part| {
            let part = part.strip_prefix("Digest ").unwrap_or(part);
            part.strip_prefix(name)?.strip_prefix('=')
        });
        found.unwrap_or_default().trim_matches('"').to_owned()
    }

    #[test]
    fn strongest_challenge_is_used() {
        let sha256 = r#"Digest realm="r", nonce="n2", qop="auth", algorithm=SHA-256"#;
        for offered in [
            &[MD5, sha256, r#"Basic realm="r""#][..],
            &[&format!("Basic realm=\"r\", {sha256}, {MD5}")],
        ] {
            let digest = challenges(offered).digest.unwrap();
            assert_eq!(digest.nonce(), "n2", "{offered:?}");
        }
        assert_eq!(challenges(&[MD5]).digest.unwrap().nonce(), "n1");
    }

    #[test]
    fn unsupported_schemes_are_named() {
        use PasswordScheme::{BasicFirst, DigestOnly};
        for (offered, scheme, named) in [
            (&[][..], BasicFirst, None),
            (&["Basic realm=x"], BasicFirst, None),
            (&["NTLM", "basic"], BasicFirst, None),
            (&["Basic realm=x"], DigestOnly, Some("Basic")),
            (&[MD5], DigestOnly, None),
            (&["Bearer"], DigestOnly, None),
            (
                &["Negotiate", "NTLM"],
                BasicFirst,
                Some("Negotiate or NTLM"),
            ),
            (&["Negotiate, NTLM"], BasicFirst, Some("Negotiate or NTLM")),
            (&["NTLM TlRMTVNTUAACAAAAAAAAAA=="], BasicFirst, Some("NTLM")),
            (
                &["Digest realm=x, nonce=y, algorithm=SHA3"],
                BasicFirst,
                Some("Digest (unknown algorithm \"SHA3\")"),
            ),
        ] {
            let found = challenges(offered).unsupported(scheme);
            assert_eq!(found.as_deref(), named, "{offered:?}");
        }
    }

    /// RFC 7616 section 3.9.1 fixes the client nonce, which is random here: the response is
    /// recomputed from the parts that were sent.
    #[test]
    fn response_has_nonce_count_and_client_nonce() {
        let sessions = DigestSessions::default();
        for count in ["00000001", "00000002"] {
            let mut request = authenticate(&sessions, PasswordScheme::DigestOnly);
            if count == "00000001" {
                assert_eq!(request.value("GET", "/"), None);
                assert!(request.is_repeated_after(challenges(&[MD5])));
            }
            let value = request.value("GET", "/dir/index.html").unwrap();
            assert_eq!(parameter(&value, "nc"), count, "{value}");
            assert_eq!(parameter(&value, "uri"), "/dir/index.html", "{value}");
            let cnonce = parameter(&value, "cnonce");
            assert!(cnonce.len() >= 16, "{value}");
            let md5 = |text: String| {
                use md5::Digest as _;
                let hash = md5::Md5::digest(text.as_bytes());
                hash.iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            };
            let secret = md5("Mufasa:r:Circle of Life".into());
            let request = md5("GET:/dir/index.html".into());
            let expected = md5(format!("{secret}:n1:{count}:{cnonce}:auth:{request}"));
            assert_eq!(parameter(&value, "response"), expected);
        }
    }

    #[test]
    fn each_session_is_used_by_one_request_at_a_time() {
        let sessions = DigestSessions::default();
        let mut first = authenticate(&sessions, PasswordScheme::BasicFirst);
        assert!(first.value("GET", "/").unwrap().starts_with("Basic "));
        assert!(first.is_repeated_after(challenges(&[MD5])));
        assert!(first.value("GET", "/").unwrap().starts_with("Digest "));
        // Neither the session in use nor the password itself.
        let mut second = authenticate(&sessions, PasswordScheme::BasicFirst);
        assert_eq!(second.value("GET", "/"), None);
        drop(first);
        drop(second);
        let mut third = authenticate(&sessions, PasswordScheme::BasicFirst);
        assert_eq!(
            parameter(&third.value("GET", "/").unwrap(), "nc"),
            "00000002"
        );
    }

    #[test]
    fn stale_nonce_is_replaced_and_rejection_is_final() {
        let stale = r#"Digest realm="r", nonce="n2", qop="auth", stale=true"#;
        let sessions = DigestSessions::default();
        let mut request = authenticate(&sessions, PasswordScheme::BasicFirst);
        assert!(request.is_repeated_after(challenges(&[MD5])));
        request.value("GET", "/").unwrap();
        assert!(request.is_repeated_after(challenges(&[stale])));
        assert_eq!(
            parameter(&request.value("GET", "/").unwrap(), "nonce"),
            "n2"
        );
        // Bounded, even if the server never accepts a nonce.
        assert!(!request.is_repeated_after(challenges(&[stale])));
        drop(request);

        let mut request = authenticate(&sessions, PasswordScheme::BasicFirst);
        assert!(request.is_repeated_after(challenges(&[MD5])));
        request.value("GET", "/").unwrap();
        assert!(!request.is_repeated_after(challenges(&[MD5])));
    }

    #[test]
    fn remembered_servers_are_bounded() {
        let sessions = DigestSessions::default();
        for server in 0..2 * MAX_SESSIONS {
            let login = "a:b".parse().unwrap();
            let mut request = sessions.authenticate(server, login, PasswordScheme::BasicFirst);
            assert!(request.is_repeated_after(challenges(&[MD5])));
        }
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
    }
}
