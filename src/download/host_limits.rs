//! Servers: those that asked to be left alone for a while, and how many connections each has.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use smol::Timer;
use url::{Position, Url};

use crate::limits::semaphore::{JobSlot, Permit, Semaphore};

/// So many are remembered at once; one more would only be asked too early.
const REMEMBERED: usize = 1024;

/// Until when nobody asks which server, and who asks it. One is the host and the port together.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    held: Mutex<HashMap<String, Instant>>,
    /// Connections to one server at once.
    limit: Option<NonZeroUsize>,
    places: Mutex<HashMap<String, Semaphore>>,
}

/// A place among the connections to one server, whose number may be limited.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: Option<Permit>,
}

impl Hosts {
    /// At most so many connections to each server at once.
    pub(crate) fn new(limit: Option<NonZeroUsize>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Waits until the server of `url` may be asked, and lets others run meanwhile; returns a place
    /// among those that have a connection to it.
    ///
    /// # Cancel safety
    ///
    /// That of [`JobSlot::release_while`].
    pub(crate) async fn enter(&self, url: &Url, slot: &JobSlot) -> Option<Permit> {
        loop {
            self.wait(url, Some(slot)).await;
            let permits = self.places(url)?;
            let mut place = permits.try_acquire();
            if place.is_none() {
                slot.release_while(async { place = Some(permits.acquire().await) })
                    .await;
            }
            // It may have been held up while we waited.
            if self.until(url).is_none() {
                return place;
            }
        }
    }

    /// A place for a further connection to the server of `url`, if one is free.
    pub(crate) fn spare(&self, url: &Url) -> Option<Place> {
        let place = match self.places(url) {
            None => None,
            Some(permits) => Some(permits.try_acquire()?),
        };
        Some(Place { _permit: place })
    }

    fn places(&self, url: &Url) -> Option<Semaphore> {
        let limit = self.limit?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= REMEMBERED {
            places.retain(|_, permits| !permits.is_idle());
        }
        let permits = places
            .entry(server(url).to_owned())
            .or_insert_with(|| Semaphore::new(limit));
        Some(permits.clone())
    }

    /// Leaves the server of `url` alone until then, or longer if that has been said before.
    pub(crate) fn hold(&self, url: &Url, until: Instant) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        held.retain(|_, until| *until > now);
        if held.len() < REMEMBERED {
            let until = until.max(held.get(server(url)).copied().unwrap_or(until));
            held.insert(server(url).to_owned(), until);
        }
    }

    /// Waits until the server of `url` may be asked, and lets others have the `slot` meanwhile.
    ///
    /// # Cancel safety
    ///
    /// That of [`JobSlot::release_while`].
    pub(crate) async fn wait(&self, url: &Url, slot: Option<&JobSlot>) {
        while let Some(until) = self.until(url) {
            let over = async {
                Timer::at(until).await;
            };
            match slot {
                Some(slot) => slot.release_while(over).await,
                None => over.await,
            }
        }
    }

    fn until(&self, url: &Url) -> Option<Instant> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_empty() {
            return None;
        }
        held.get(server(url))
            .copied()
            .filter(|until| *until > Instant::now())
    }
}

fn server(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_server_is_held_as_a_whole_and_no_other() {
        let hosts = Hosts::default();
        let url = |text: &str| text.parse::<Url>().unwrap();
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        hosts.hold(&url("http://a:1/f"), now + 2 * minute);
        hosts.hold(&url("http://a:1/g"), now + minute);
        assert_eq!(
            hosts.until(&url("http://user@a:1/h?x")),
            Some(now + 2 * minute)
        );
        assert_eq!(hosts.until(&url("http://a:2/f")), None);
        assert_eq!(hosts.until(&url("http://b:1/f")), None);
    }

    #[test]
    fn what_is_over_holds_nobody() {
        let hosts = Hosts::default();
        let url = "http://a/".parse().unwrap();
        hosts.hold(&url, Instant::now());
        assert_eq!(hosts.until(&url), None);
    }
}
