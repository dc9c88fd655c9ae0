//! Limited concurrency ([`semaphore`]) and the shutdown signal ([`shutdown`]).

pub(crate) mod backoff;
pub(crate) mod concurrency;
pub(crate) mod nofile;
pub(crate) mod rate;
pub mod semaphore;
pub mod shutdown;
pub(crate) mod throttle;
pub(crate) mod timeout;
