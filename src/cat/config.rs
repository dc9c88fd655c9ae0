//! What a run is asked to do.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// How a run reads and what it shows.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is shown beside the bytes themselves. Default: nothing, each byte as it is.
    pub display: Display,
    /// The inputs that are open at once: the one whose turn it is and those read ahead; with
    /// one, nothing is read ahead. Default: 64.
    pub jobs: NonZeroUsize,
    /// Whose turn comes next. Default: in the order given.
    pub order: Order,
    /// Whether inputs that begin as gzip, zstd or xz do are decompressed, at most 8 at once, each
    /// on a thread of its own. They cannot be followed. Default: no.
    pub decompress: bool,
    /// Whether to go on with regular files that grow, are cut or replaced, or were not there, until
    /// nobody reads the output any more. A sink that is replaced at the end never is. Default: no.
    pub follow: bool,
    /// The time to wait after each line that is written. Default: none.
    pub delay: Option<Duration>,
    /// The bytes a second that are written at most. Default: no limit.
    pub rate: Option<NonZeroU64>,
}

impl Default for Config {
    fn default() -> Self {
        let jobs = const { NonZeroUsize::new(64).expect("not zero") };
        Self {
            display: Display::default(),
            jobs,
            order: Order::default(),
            decompress: false,
            follow: false,
            delay: None,
            rate: None,
        }
    }
}

/// Whose turn comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The inputs are written in the order given.
    #[default]
    AsGiven,
    /// Of the inputs that are open, the first that is ready comes next: a regular file, a stream
    /// that has ended, or one of which so much has come that no more is kept before its turn.
    /// Each is written whole before the next.
    AsCompleted,
}

/// What is shown beside the bytes themselves, as POSIX and GNU `cat` define it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Display {
    /// Which lines get a number. Default: none.
    pub numbers: Numbers,
    /// Whether of several empty lines in a row only the first is shown. Default: no.
    pub squeeze_blank: bool,
    /// Whether each line's end is shown as `$`, and a carriage return before it as `^M`.
    /// Default: no.
    pub ends: bool,
    /// Whether a tab is shown as `^I`. Default: no.
    pub tabs: bool,
    /// Whether control characters are shown as `^X` and bytes from 128 as `M-X`; not tabs and
    /// line ends. Default: no.
    pub nonprinting: bool,
}

impl Display {
    /// Whether each byte is shown as it is, and nothing beside.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Whether more bytes can come out than went in.
    pub fn can_grow(&self) -> bool {
        *self
            != Self {
                squeeze_blank: self.squeeze_blank,
                ..Self::default()
            }
    }
}

/// Which lines get a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numbers {
    /// None.
    #[default]
    None,
    /// Every line.
    All,
    /// Every line that is not empty.
    NonBlank,
}
