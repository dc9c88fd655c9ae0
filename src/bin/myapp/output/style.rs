//! Colors of messages on stderr.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

static ENABLED: OnceLock<bool> = OnceLock::new();

/// Part of a message that has a color of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Error,
    Hint,
    Saved,
    Total,
}

/// Turns colors on or off, as the options say. Only the first call has an effect.
pub(crate) fn set_enabled(enabled: bool) {
    let _ = ENABLED.set(enabled);
}

/// Returns whether stderr is a terminal with colors that the user has not declined.
pub(crate) fn is_supported() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|name| name == "dumb");
    !is_set("NO_COLOR") && !is_dumb && io::stderr().is_terminal()
}

/// Returns a text in the color of its role, if colors are enabled.
pub(crate) fn paint(role: Role, text: &str) -> String {
    // Usage errors are printed before the options are known.
    if !ENABLED.get().copied().unwrap_or_else(is_supported) {
        return text.to_owned();
    }
    let code = match role {
        Role::Error => "1;31",
        Role::Hint => "36",
        Role::Saved => "32",
        Role::Total => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
