//! One question about a file, on its way through redirects.

use std::time::{Duration, Instant};

use futures_lite::io::{copy, sink};
use tracing::debug;

use crate::download::error::DownloadError;
use crate::download::http::{Response, shown};
use crate::download::input::item::Source;
use crate::download::request::headers::Header;
use crate::download::request::redirect::{Route, is_redirect};
use crate::download::transfer::Shared;
use crate::download::transfer::retry::retry_after;
use crate::limits::rate::{RateLimitHandle, SharedRateLimiter};
use crate::limits::semaphore::JobSlot;
use crate::limits::timeout::timeout;

/// The rest of an answer that nobody wants is read, so that its connection can be used again,
/// if it is no longer than this and comes that soon.
const DRAINED: (u64, Duration) = (16 * 1024, Duration::from_millis(100));

/// Who asks for a file, and where.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) source: &'a Source,
    /// The fields for this file alone.
    pub(crate) headers: &'a [Header],
    /// The place that others may have while a server wants to be left alone.
    pub(crate) slot: Option<&'a JobSlot>,
    /// How fast this file may come.
    pub(crate) rate: Option<&'a SharedRateLimiter>,
    /// When the turn of the file has come.
    pub(crate) start: Instant,
}

impl Asking<'_> {
    /// Asks, and follows redirects to an answer that is none. It begins at the first URL each
    /// time: where that leads may have expired.
    pub(crate) async fn ask(
        &self,
        fields: &[(String, String)],
    ) -> Result<(Response, Route), DownloadError> {
        let Shared {
            config,
            client,
            hosts,
            ..
        } = self.shared;
        let mut route = Route::new(self.source.clone(), self.headers, config);
        loop {
            // Further connections of a file have their places already.
            match self.slot {
                Some(slot) => route.hold(hosts.enter(route.url(), slot).await),
                None => hosts.wait(route.url(), None).await,
            }
            let response = client
                .get(route.url(), &all_fields(route.headers(), fields))
                .await?;
            if !is_redirect(response.status()) {
                return Ok((response, route));
            }
            let location = response.header("location").map(<[u8]>::to_vec);
            // First, for the place at this server goes to another with the next step.
            Box::pin(drain(response)).await;
            route.follow(location.as_deref(), config)?;
            debug!(to = %shown(route.url()), "redirected");
        }
    }

    /// How fast a body may come.
    pub(crate) fn shares(&self) -> Vec<RateLimitHandle> {
        self.shared
            .rate
            .iter()
            .chain(self.rate)
            .map(SharedRateLimiter::handle)
            .collect()
    }

    /// Why an answer is no file (RFC 9110 section 15).
    pub(crate) async fn refusal(&self, response: Response, route: &Route) -> DownloadError {
        let status = response.status();
        if status < 400 {
            return DownloadError::Unasked { status };
        }
        let asked = response.header("retry-after");
        let wait = asked.and_then(|asked| retry_after(asked, response.header("date")));
        if let Some(until) = wait.and_then(|wait| Instant::now().checked_add(wait)) {
            self.shared.hosts.hold(route.url(), until);
        }
        Box::pin(drain(response)).await;
        let url = route.is_redirected().then(|| shown(route.url()));
        DownloadError::Status {
            status,
            url,
            retry_after: wait,
        }
    }
}

/// The fields that ask for the bytes from `from` on, up to but not with `end`, of the version
/// that the condition names (RFC 9110 sections 13.1.5 and 14.2).
pub(crate) fn range(from: u64, end: Option<u64>, if_range: Option<&str>) -> Vec<(String, String)> {
    let last = end.map(|end| (end - 1).to_string()).unwrap_or_default();
    let range = ("Range".to_owned(), format!("bytes={from}-{last}"));
    let condition = if_range.map(|version| ("If-Range".to_owned(), version.to_owned()));
    [range].into_iter().chain(condition).collect()
}

/// All fields of a request. What a user says about codings counts more than our own: a list sent
/// in two fields is one list (RFC 9110 section 5.3).
fn all_fields(given: &[(String, String)], own: &[(String, String)]) -> Vec<(String, String)> {
    let is_codings = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("accept-encoding");
    let doubled = given.iter().any(|field| is_codings(&field));
    let own = own.iter().filter(|field| !(doubled && is_codings(field)));
    given.iter().chain(own).cloned().collect()
}

/// Reads what little is left of an answer that nobody wants.
pub(crate) async fn drain(response: Response) {
    let (longest, limit) = DRAINED;
    if response.length().is_some_and(|length| length <= longest) {
        // If it does not come, the connection is closed: that is all.
        let _ = timeout(Some(limit), copy(response, sink())).await;
    }
}
