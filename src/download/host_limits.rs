//! Per-host connection limits and back-off times.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use smol::Timer;
use tracing::warn;
use url::{Position, Url};

use crate::download::config::RetryPolicy;
use crate::download::error::Error;
use crate::limits::semaphore::{JobSlot, Permit, Semaphore};

/// Maximum number of tracked hosts. A host beyond that is contacted before its back-off is over,
/// and counts as one that has not responded.
const MAX_HOSTS: usize = 1024;

/// Longest back-off that is recorded. It only matters for the arithmetic of times.
const MAX_BACK_OFF: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// Adjustments without an overload after which a host gets one more connection.
const CALM_ADJUSTMENTS: u32 = 8;

/// Back-off of one host.
#[derive(Debug, Clone, Copy)]
struct BackOff {
    /// End of the delay that the host requested.
    until: Instant,
    /// Time from which requests are sent again, even if `until` is later.
    expires: Instant,
    /// Whether a wait for the end was logged.
    is_logged: bool,
}

/// Connection limits and back-off times, keyed by host and port.
#[derive(Debug, Default)]
pub(crate) struct HostLimiter {
    blocked: Mutex<HashMap<String, BackOff>>,
    /// Maximum number of connections per host.
    limit: Option<NonZeroUsize>,
    hosts: Mutex<HashMap<String, HostPermits>>,
    /// Hosts that have responded.
    responded: Mutex<HashSet<String>>,
}

/// Connections of one host.
#[derive(Debug)]
struct HostPermits {
    semaphore: Semaphore,
    /// Number of permits.
    limit: usize,
    /// Overloads since the last adjustment.
    overloads: u64,
    /// Adjustments since the last overload.
    calm: u32,
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
    /// # Errors
    ///
    /// The errors of [`HostLimiter::wait`].
    ///
    /// # Cancel safety
    ///
    /// That of [`JobSlot::release_while`].
    pub(crate) async fn acquire(
        &self,
        url: &Url,
        slot: &JobSlot,
        deadline: Option<Instant>,
    ) -> Result<Option<Permit>, Error> {
        loop {
            self.wait(url, Some(slot), deadline).await?;
            let Some(semaphore) = self.semaphore(url) else {
                return Ok(None);
            };
            let mut permit = semaphore.try_acquire();
            if permit.is_none() {
                slot.release_while(async { permit = Some(semaphore.acquire().await) })
                    .await;
            }
            // A back-off may have started while this waited for the permit.
            if self.blocked_until(url, deadline)?.is_none() {
                return Ok(permit);
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
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, host| !host.semaphore.is_idle());
        }
        let host = hosts
            .entry(host_and_port(url).to_owned())
            .or_insert_with(|| HostPermits {
                semaphore: Semaphore::new(limit),
                limit: limit.get(),
                overloads: 0,
                calm: 0,
            });
        Some(host.semaphore.clone())
    }

    /// Records that the host of `url` refused a request for overload, or did not respond in time.
    pub(crate) fn record_overload(&self, url: &Url) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get_mut(host_and_port(url)) {
            host.overloads += 1;
        }
    }

    /// Halves the connections of each overloaded host, of which there are at most `total`, and adds
    /// one to the others after a while (RFC 5681 section 3.1). A single host is limited by the total
    /// instead: returns the number of its overloads.
    pub(crate) fn adjust(&self, total: usize) -> u64 {
        let Some(max) = self.limit else {
            return 0;
        };
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let (1, Some(host)) = (hosts.len(), hosts.values_mut().next()) {
            return std::mem::take(&mut host.overloads);
        }
        for host in hosts.values_mut() {
            host.calm += 1;
            if std::mem::take(&mut host.overloads) > 0 {
                let limit = (host.limit.min(total) / 2).max(1);
                host.semaphore.shrink(host.limit - limit);
                host.limit = limit;
                host.calm = 0;
            } else if host.limit < max.get() && host.calm >= CALM_ADJUSTMENTS {
                host.semaphore.grow(1);
                host.limit += 1;
                host.calm = 0;
            }
        }
        0
    }

    /// Records that the host of `url` has responded.
    pub(crate) fn record_response(&self, url: &Url) {
        let mut responded = self
            .responded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let host = host_and_port(url);
        if responded.len() < MAX_HOSTS && !responded.contains(host) {
            responded.insert(host.to_owned());
        }
    }

    /// Returns whether the host of `url` has responded.
    pub(crate) fn has_responded(&self, url: &Url) -> bool {
        let responded = self
            .responded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        responded.contains(host_and_port(url))
    }

    /// Delays requests to the host of `url`, for at most `max_delay`. An earlier call with a later
    /// end stays in effect.
    pub(crate) fn back_off(&self, url: &Url, delay: Duration, max_delay: Duration) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let delay = delay.min(MAX_BACK_OFF);
        let new = BackOff {
            until: now + delay,
            expires: now + delay.min(max_delay),
            is_logged: false,
        };
        blocked.retain(|_, back_off| back_off.expires > now);
        let host = host_and_port(url);
        let earlier = blocked.get(host);
        if blocked.len() < MAX_HOSTS && earlier.is_none_or(|earlier| earlier.until < new.until) {
            blocked.insert(host.to_owned(), new);
        }
    }

    /// Waits until the back-off of the host of `url` is over. The job slot is released while
    /// waiting.
    ///
    /// # Errors
    ///
    /// [`Error::HostDelay`] if the wait would end after `deadline`, or without one, if it would
    /// exceed the default limit.
    ///
    /// # Cancel safety
    ///
    /// That of [`JobSlot::release_while`].
    pub(crate) async fn wait(
        &self,
        url: &Url,
        slot: Option<&JobSlot>,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        while let Some(until) = self.blocked_until(url, deadline)? {
            let timer = async {
                Timer::at(until).await;
            };
            match slot {
                Some(slot) => slot.release_while(timer).await,
                None => timer.await,
            }
        }
        Ok(())
    }

    /// Returns the end of the back-off of the host of `url`, which must not be after `deadline`.
    /// The first wait for an end is logged, not each one.
    fn blocked_until(
        &self,
        url: &Url,
        deadline: Option<Instant>,
    ) -> Result<Option<Instant>, Error> {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked.is_empty() {
            return Ok(None);
        }
        let host = host_and_port(url);
        let now = Instant::now();
        let Some(back_off) = blocked.get_mut(host) else {
            return Ok(None);
        };
        if back_off.expires <= now {
            return Ok(None);
        }
        let wait = back_off.until.saturating_duration_since(now);
        let left = deadline.map_or(RetryPolicy::DEFAULT_MAX_RETRY_AFTER, |deadline| {
            deadline.saturating_duration_since(now)
        });
        if wait > left {
            return Err(Error::HostDelay { wait, left });
        }
        if !back_off.is_logged {
            back_off.is_logged = true;
            let wait = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            warn!(%host, ?wait, "waiting for the host: it sent Retry-After");
        }
        Ok(Some(back_off.until))
    }
}

fn host_and_port(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    /// Returns the remaining back-off, rounded up to minutes.
    fn minutes_left(hosts: &HostLimiter, text: &str) -> Option<u64> {
        let until = hosts.blocked_until(&url(text), None).unwrap()?;
        let left = until.saturating_duration_since(Instant::now());
        Some(left.as_secs().div_ceil(60))
    }

    #[test]
    fn back_off_applies_to_host_and_port() {
        let hosts = HostLimiter::default();
        hosts.back_off(&url("http://a:1/f"), 2 * MINUTE, 10 * MINUTE);
        hosts.back_off(&url("http://a:1/g"), MINUTE, 10 * MINUTE);
        assert_eq!(minutes_left(&hosts, "http://user@a:1/h?x"), Some(2));
        assert_eq!(minutes_left(&hosts, "http://a:2/f"), None);
        assert_eq!(minutes_left(&hosts, "http://b:1/f"), None);
    }

    #[test]
    fn expired_back_off_blocks_nothing() {
        let hosts = HostLimiter::default();
        hosts.back_off(&url("http://a/"), Duration::ZERO, MINUTE);
        hosts.back_off(&url("http://b/"), Duration::MAX, Duration::ZERO);
        assert_eq!(minutes_left(&hosts, "http://a/"), None);
        assert_eq!(minutes_left(&hosts, "http://b/"), None);
    }

    #[test]
    fn wait_beyond_the_deadline_is_an_error() {
        let hosts = HostLimiter::default();
        let a = url("http://a/");
        hosts.back_off(&a, 2 * MINUTE, 10 * MINUTE);
        let deadline = |limit| Some(Instant::now() + limit);
        assert!(hosts.blocked_until(&a, deadline(3 * MINUTE)).is_ok());
        assert!(hosts.blocked_until(&a, deadline(MINUTE)).is_err());
        assert!(hosts.blocked_until(&a, None).is_ok());
        hosts.back_off(&a, Duration::MAX, 10 * MINUTE);
        assert!(hosts.blocked_until(&a, None).is_err());
    }

    #[test]
    fn overloaded_host_gets_fewer_connections_and_recovers() {
        let hosts = HostLimiter::new(NonZeroUsize::new(16));
        let [a, b] = ["http://a/", "http://b/"].map(|url| url.parse().unwrap());
        let held: Vec<_> = std::iter::from_fn(|| hosts.try_acquire(&a)).collect();
        // Of a single host, the total is reduced.
        hosts.record_overload(&a);
        assert_eq!(hosts.adjust(8), 1);
        assert_eq!(held.len(), 16);
        drop(hosts.try_acquire(&b));

        hosts.record_overload(&a);
        hosts.record_overload(&a);
        assert_eq!(hosts.adjust(8), 0);
        drop(held);
        let available = |url: &Url| {
            let all: Vec<_> = std::iter::from_fn(|| hosts.try_acquire(url)).collect();
            all.len()
        };
        assert_eq!((available(&a), available(&b)), (4, 16));
        for _ in 0..2 * CALM_ADJUSTMENTS {
            hosts.adjust(8);
        }
        assert_eq!(available(&a), 6);
        for _ in 0..10 {
            hosts.record_overload(&a);
            hosts.adjust(8);
        }
        assert_eq!(available(&a), 1);
    }
}
