//! Limits: concurrency ([`semaphore`], chosen by measurement: [`concurrency`]), file descriptors
//! ([`nofile`]), byte rates ([`rate`]), timeouts ([`timeout`]), backoff ([`backoff`]), log
//! throttling ([`throttle`]) and the shutdown signal ([`shutdown`]).

pub mod backoff;
pub mod concurrency;
pub mod nofile;
pub mod rate;
pub mod semaphore;
pub mod shutdown;
pub mod throttle;
pub mod timeout;
