//! Retries with exponential backoff.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use smol::Timer;
use tracing::warn;

use crate::echo::config::Target;
use crate::error_chain::ErrorChain;
use crate::limits::backoff::Backoff;

/// Upper bound of the delay before the first retry.
const INITIAL_DELAY: Duration = Duration::from_millis(200);

/// Upper bound of the delay before any later retry.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Runs `attempt` until it succeeds or the retries of `target` are used up.
pub(crate) async fn retry<T, E, F>(target: &Target, attempt: impl Fn() -> F) -> Result<T, E>
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::new(INITIAL_DELAY, MAX_DELAY);
    for _ in 0..target.retries {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => {
                let delay = backoff.next_delay();
                warn!(target: "myapp::traffic", ?delay, error = %ErrorChain(&error), "retrying");
                Timer::after(delay).await;
            }
        }
    }
    attempt().await
}
