//! How many at once ([`permits`]), how long ([`deadline`]), how soon again ([`backoff`]),
//! until when ([`stop`]).

pub mod backoff;
pub mod deadline;
pub mod permits;
pub mod stop;
