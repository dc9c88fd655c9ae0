//! How many at once ([`permits`], [`descriptors`]), how fast ([`rate`]), how long ([`deadline`]),
//! how soon again ([`backoff`]), how seldom ([`seldom`]), until when ([`stop`]).

pub mod backoff;
pub mod deadline;
pub mod descriptors;
pub mod permits;
pub mod rate;
pub mod seldom;
pub mod stop;
