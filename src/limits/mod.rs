//! How many at once ([`permits`], [`descriptors`]), how fast ([`rate`]), how long ([`deadline`]),
//! how soon again ([`backoff`]), how seldom ([`seldom`]), until when ([`stop`]).

pub mod backoff;
pub mod nofile;
pub mod rate;
pub mod semaphore;
pub mod shutdown;
pub mod throttle;
pub mod timeout;
