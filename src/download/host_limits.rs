//! Per-host connection limits and back-off times.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use smol::Timer;
use url::{Position, Url};

use crate::limits::semaphore::{JobSlot, Permit, Semaphore};

/// Maximum number of tracked hosts. A host beyond that is contacted before its back-off is over.
const MAX_HOSTS: usize = 1024;

/// Connection limits and back-off times, keyed by host and port.
#[derive(Debug, Default)]
pub(crate) struct HostLimiter {
    blocked: Mutex<HashMap<String, Instant>>,
    /// Maximum number of connections per host.
    limit: Option<NonZeroUsize>,
    semaphores: Mutex<HashMap<String, Semaphore>>,
}

/// Permit for one connection to a host.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    _permit: Option<Permit>,
}

impl HostLimiter {
    /// Creates a limiter with at most `limit` connections per host.
    pub(crate) fn new(limit: Option<NonZeroUsize>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Waits until a request to the host of `url` is allowed and returns a permit for it, or
    /// `None` without a limit. The job slot is released while waiting.
    ///
    /// # Cancel safety
    ///
    /// That of [`JobSlot::release_while`].
    pub(crate) async fn acquire(&self, url: &Url, slot: &JobSlot) -> Option<Permit> {
        loop {
            self.wait(url, Some(slot)).await;
            let semaphore = self.semaphore(url)?;
            let mut permit = semaphore.try_acquire();
            if permit.is_none() {
                slot.release_while(async { permit = Some(semaphore.acquire().await) })
                    .await;
            }
            // A back-off may have started while this waited for the permit.
            if self.blocked_until(url).is_none() {
                return permit;
            }
        }
    }

    /// Returns a permit for a further connection to the host of `url`, if one is available.
    pub(crate) fn try_acquire(&self, url: &Url) -> Option<ConnectionPermit> {
        let permit = match self.semaphore(url) {
            None => None,
            Some(semaphore) => Some(semaphore.try_acquire()?),
        };
        Some(ConnectionPermit { _permit: permit })
    }

    fn semaphore(&self, url: &Url) -> Option<Semaphore> {
        let limit = self.limit?;
        let mut semaphores = self
            .semaphores
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if semaphores.len() >= MAX_HOSTS {
            semaphores.retain(|_, semaphore| !semaphore.is_idle());
        }
        let semaphore = semaphores
            .entry(host_and_port(url).to_owned())
            .or_insert_with(|| Semaphore::new(limit));
        Some(semaphore.clone())
    }

    /// Blocks requests to the host of `url` until the given time. An earlier call with a later
    /// time stays in effect.
    pub(crate) fn back_off(&self, url: &Url, until: Instant) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        blocked.retain(|_, until| *until > now);
        if blocked.len() < MAX_HOSTS {
            let host = host_and_port(url);
            let until = until.max(blocked.get(host).copied().unwrap_or(until));
            blocked.insert(host.to_owned(), until);
        }
    }

    /// Waits until the back-off of the host of `url` is over. The job slot is released while
    /// waiting.
    ///
    /// # Cancel safety
    ///
    /// That of [`JobSlot::release_while`].
    pub(crate) async fn wait(&self, url: &Url, slot: Option<&JobSlot>) {
        while let Some(until) = self.blocked_until(url) {
            let timer = async {
                Timer::at(until).await;
            };
            match slot {
                Some(slot) => slot.release_while(timer).await,
                None => timer.await,
            }
        }
    }

    fn blocked_until(&self, url: &Url) -> Option<Instant> {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked.is_empty() {
            return None;
        }
        blocked
            .get(host_and_port(url))
            .copied()
            .filter(|until| *until > Instant::now())
    }
}

fn host_and_port(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn back_off_applies_to_host_and_port() {
        let hosts = HostLimiter::default();
        let url = |text: &str| text.parse::<Url>().unwrap();
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        hosts.back_off(&url("http://a:1/f"), now + 2 * minute);
        hosts.back_off(&url("http://a:1/g"), now + minute);
        assert_eq!(
            hosts.blocked_until(&url("http://user@a:1/h?x")),
            Some(now + 2 * minute)
        );
        assert_eq!(hosts.blocked_until(&url("http://a:2/f")), None);
        assert_eq!(hosts.blocked_until(&url("http://b:1/f")), None);
    }

    #[test]
    fn expired_back_off_blocks_nothing() {
        let hosts = HostLimiter::default();
        let url = "http://a/".parse().unwrap();
        hosts.back_off(&url, Instant::now());
        assert_eq!(hosts.blocked_until(&url), None);
    }
}
