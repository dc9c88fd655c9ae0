//! Connection pool keyed by origin and proxy.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::proxy::Proxy;
use crate::limits::nofile;
use crate::net::address::Endpoint;

/// Lifetime of an idle connection. Most servers close theirs later (nginx after 75 s, some after
/// 5 s); a connection closed by the server costs one retry.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of idle connections in total, unless the limit per origin is higher or there are
/// few descriptors.
const MAX_IDLE: usize = 256;

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) tls: bool,
    pub(super) address: Endpoint,
}

/// Properties that must match to reuse a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) origin: Origin,
    /// Proxy with its credentials.
    pub(super) proxy: Option<Proxy>,
}

/// Idle connections, most recently used last.
#[derive(Debug)]
pub(super) struct Pool<C> {
    per_origin: usize,
    /// Maximum number of connections, at most a quarter of the descriptors.
    total: usize,
    idle: Mutex<VecDeque<Idle<C>>>,
}

#[derive(Debug)]
struct Idle<C> {
    key: PoolKey,
    connection: C,
    since: Instant,
}

impl<C> Pool<C> {
    pub(super) fn new(per_origin: usize) -> Self {
        Self {
            per_origin,
            total: MAX_IDLE.max(per_origin).min(nofile::available().get() / 4),
            idle: Mutex::default(),
        }
    }

    /// Removes the most recently used connection for `key`, the most likely one to be open.
    pub(super) fn take(&self, key: &PoolKey) -> Option<C> {
        let mut idle = self.lock();
        drop_expired(&mut idle, Instant::now());
        let at = idle.iter().rposition(|kept| kept.key == *key)?;
        idle.remove(at).map(|kept| kept.connection)
    }

    /// Adds a connection. If a limit is exceeded, the least recently used one is closed.
    pub(super) fn put(&self, key: PoolKey, connection: C) {
        let mut idle = self.lock();
        drop_expired(&mut idle, Instant::now());
        let same = |kept: &Idle<C>| kept.key == key;
        if idle.iter().filter(|kept| same(kept)).count() >= self.per_origin {
            idle.iter().position(same).map(|at| idle.remove(at));
        } else if idle.len() >= self.total {
            idle.pop_front();
        }
        if self.per_origin.min(self.total) > 0 {
            idle.push_back(Idle {
                key,
                connection,
                since: Instant::now(),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle<C>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_expired<C>(idle: &mut VecDeque<Idle<C>>, now: Instant) {
    let old = idle.partition_point(|kept| now.duration_since(kept.since) >= IDLE_TIMEOUT);
    idle.drain(..old);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(tls: bool, port: u16) -> PoolKey {
        PoolKey {
            origin: Origin {
                tls,
                address: Endpoint::loopback(port),
            },
            proxy: None,
        }
    }

    #[test]
    fn proxied_connection_is_keyed_by_credentials() {
        let pool = Pool::new(2);
        let through = |proxy: &str| PoolKey {
            proxy: proxy.parse().ok(),
            ..origin(false, 1)
        };
        pool.put(through("a:b@proxy"), "x");
        for other in [origin(false, 1), through("proxy"), through("a:c@proxy")] {
            assert_eq!(pool.take(&other), None, "{other:?}");
        }
        assert_eq!(pool.take(&through("a:b@proxy")), Some("x"));
    }

    #[test]
    fn most_recent_connection_of_the_origin_is_reused() {
        let pool = Pool::new(2);
        pool.put(origin(false, 1), "a");
        pool.put(origin(false, 1), "b");
        pool.put(origin(true, 1), "c");
        assert_eq!(pool.take(&origin(false, 2)), None);
        assert_eq!(pool.take(&origin(false, 1)), Some("b"));
        assert_eq!(pool.take(&origin(false, 1)), Some("a"));
        assert_eq!(pool.take(&origin(false, 1)), None);
        assert_eq!(pool.take(&origin(true, 1)), Some("c"));
    }

    #[test]
    fn oldest_connection_is_evicted_at_the_limit() {
        let pool = Pool::new(2);
        for name in ["a", "b", "c"] {
            pool.put(origin(false, 1), name);
        }
        let one = origin(false, 1);
        assert_eq!(
            [pool.take(&one), pool.take(&one), pool.take(&one)],
            [Some("c"), Some("b"), None]
        );

        for port in 0..1000 {
            pool.put(origin(false, port), "x");
        }
        assert_eq!(pool.lock().len(), MAX_IDLE);
        assert_eq!(pool.take(&origin(false, 999 - MAX_IDLE as u16)), None);
        assert_eq!(pool.take(&origin(false, 1000 - MAX_IDLE as u16)), Some("x"));
    }

    #[test]
    fn pool_of_size_zero_keeps_nothing() {
        let pool = Pool::new(0);
        pool.put(origin(false, 1), "a");
        assert_eq!(pool.take(&origin(false, 1)), None);
    }

    #[test]
    fn expired_connection_is_dropped() {
        let pool = Pool::new(2);
        pool.put(origin(false, 1), "old");
        pool.put(origin(false, 2), "new");
        pool.lock()[0].since -= IDLE_TIMEOUT;
        assert_eq!(pool.take(&origin(false, 2)), Some("new"));
        assert!(pool.lock().is_empty());
    }
}
