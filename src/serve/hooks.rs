//! Functions of the caller.

use std::sync::OnceLock;

use crate::serve::event::ConnectionObserver;
use crate::serve::handler::Handler;

/// Functions of the caller. They are set before the workers start, if at all.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    pub(super) handler: OnceLock<Handler>,
    pub(super) observer: OnceLock<ConnectionObserver>,
}
