//! Readiness of sockets.

/// The direction in which a socket can be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Readable, or a connection can be accepted.
    Read,
    /// Writable.
    Write,
}
