//! Log lines about single connections and messages.

use crate::escape::Escaped;

/// Log target of lines about single connections and messages.
pub(super) const TRAFFIC: &str = "myapp::traffic";

/// Returns a message without its line end, escaped for the log.
pub(super) fn trim_newline(message: &[u8]) -> Escaped<'_> {
    Escaped(message.strip_suffix(b"\n").unwrap_or(message))
}
