//! Connections that are kept for the next request to the same origin.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::proxy::Proxy;
use crate::net::address::Endpoint;

/// How long a connection is kept. Most servers close theirs later (nginx after 75 s, some after
/// 5 s), and one that was closed costs only a try.
const KEPT: Duration = Duration::from_secs(30);

/// The connections that are kept in all, unless one origin may have more.
const MOST: usize = 256;

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) tls: bool,
    pub(super) address: Endpoint,
}

/// What must be the same for a connection to be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) origin: Origin,
    /// What the connection goes through, and who asks it.
    pub(super) proxy: Option<Proxy>,
}

/// Idle connections, the one that was used last at the end.
#[derive(Debug)]
pub(super) struct Pool<C> {
    per_origin: usize,
    idle: Mutex<VecDeque<Idle<C>>>,
}

#[derive(Debug)]
struct Idle<C> {
    way: Way,
    connection: C,
    since: Instant,
}

impl<C> Pool<C> {
    pub(super) fn new(per_origin: usize) -> Self {
        Self {
            per_origin,
            idle: Mutex::default(),
        }
    }

    /// Takes the connection on `way` that was used last: it is the likeliest to be open.
    pub(super) fn take(&self, way: &Way) -> Option<C> {
        let mut idle = self.lock();
        drop_old(&mut idle, Instant::now());
        let at = idle.iter().rposition(|kept| kept.way == *way)?;
        idle.remove(at).map(|kept| kept.connection)
    }

    /// Keeps a connection; where there are too many, that which was used first is closed.
    pub(super) fn put(&self, way: Way, connection: C) {
        let mut idle = self.lock();
        drop_old(&mut idle, Instant::now());
        let same = |kept: &Idle<C>| kept.way == way;
        if idle.iter().filter(|kept| same(kept)).count() >= self.per_origin {
            idle.iter().position(same).map(|at| idle.remove(at));
        } else if idle.len() >= MOST.max(self.per_origin) {
            idle.pop_front();
        }
        if self.per_origin > 0 {
            idle.push_back(Idle {
                way,
                connection,
                since: Instant::now(),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle<C>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_old<C>(idle: &mut VecDeque<Idle<C>>, now: Instant) {
    let old = idle.partition_point(|kept| now.duration_since(kept.since) >= KEPT);
    idle.drain(..old);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(tls: bool, port: u16) -> Way {
        Way {
            origin: Origin {
                tls,
                address: Endpoint::loopback(port),
            },
            proxy: None,
        }
    }

    #[test]
    fn a_connection_through_a_proxy_is_for_whoever_asked_it() {
        let pool = Pool::new(2);
        let through = |proxy: &str| Way {
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
    fn the_last_one_is_taken_first_and_only_by_its_own_origin() {
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
    fn the_oldest_goes_where_there_are_too_many() {
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
        assert_eq!(pool.lock().len(), MOST);
        assert_eq!(pool.take(&origin(false, 999 - MOST as u16)), None);
        assert_eq!(pool.take(&origin(false, 1000 - MOST as u16)), Some("x"));
    }

    #[test]
    fn a_pool_for_none_keeps_none() {
        let pool = Pool::new(0);
        pool.put(origin(false, 1), "a");
        assert_eq!(pool.take(&origin(false, 1)), None);
    }

    #[test]
    fn what_was_kept_too_long_is_gone() {
        let pool = Pool::new(2);
        pool.put(origin(false, 1), "old");
        pool.put(origin(false, 2), "new");
        pool.lock()[0].since -= KEPT;
        assert_eq!(pool.take(&origin(false, 2)), Some("new"));
        assert!(pool.lock().is_empty());
    }
}
