//! Colors of messages on stderr.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use clap::ColorChoice;

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

static ENABLED: OnceLock<bool> = OnceLock::new();

/// Part of a message that has a color of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Error,
    Warning,
    Hint,
    Saved,
    Total,
}

/// Sets when text is colored. Only the first call has an effect, and it must precede all others.
pub(crate) fn set_choice(choice: ColorChoice) {
    let _ = CHOICE.set(choice);
}

/// Returns when text is colored.
pub(crate) fn choice() -> ColorChoice {
    CHOICE.get().copied().unwrap_or(ColorChoice::Auto)
}

/// Returns whether text on stderr is colored.
pub(crate) fn is_enabled() -> bool {
    *ENABLED.get_or_init(|| match choice() {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => is_supported(),
    })
}

/// Returns whether stderr is a terminal with colors that the user has not declined.
fn is_supported() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|name| name == "dumb");
    !is_set("NO_COLOR") && !is_dumb && io::stderr().is_terminal()
}

/// Returns a text in the color of its role, if colors are enabled.
pub(crate) fn paint(role: Role, text: &str) -> String {
    if !is_enabled() {
        return text.to_owned();
    }
    let code = match role {
        Role::Error => "1;31",
        Role::Warning => "33",
        Role::Hint => "36",
        Role::Saved => "32",
        Role::Total => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
