//! Sends a request and follows its redirects.

use std::time::{Duration, Instant};

use futures_lite::io::{copy, sink};
use tracing::debug;
use url::{Position, Url};

use crate::download::context::Context;
use crate::download::error::Error;
use crate::download::http::{Challenges, Response, redact_url};
use crate::download::input::item::Source;
use crate::download::request::credentials::Credentials;
use crate::download::request::headers::Header;
use crate::download::request::redirect::RedirectChain;
use crate::download::request::status::{is_redirect, retry_after};
use crate::limits::rate::{RateLimitHandle, SharedRateLimiter};
use crate::limits::semaphore::JobSlot;
use crate::limits::timeout::timeout;

/// Maximum length of an unwanted body that is read so that its connection can be reused.
const MAX_DRAINED_LEN: u64 = 16 * 1024;

/// Maximum time for reading an unwanted body.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Parameters common to the requests for one source of a file.
#[derive(Clone, Copy)]
pub(crate) struct RequestContext<'a> {
    pub(crate) context: &'a Context,
    pub(crate) source: &'a Source,
    /// Header fields of this item.
    pub(crate) headers: &'a [Header],
    /// Job slot, released while the host is backed off.
    pub(crate) slot: Option<&'a JobSlot>,
    /// Rate limit of this file.
    pub(crate) rate: Option<&'a SharedRateLimiter>,
    /// Start of the download.
    pub(crate) start: Instant,
}

impl RequestContext<'_> {
    /// Waits until the host of the first URL accepts requests.
    pub(crate) async fn wait_for_host(&self) -> Result<(), Error> {
        let hosts = &self.context.hosts;
        hosts
            .wait(&self.source.url, self.slot, self.deadline())
            .await
    }

    /// Returns the latest time for a request that the host delays.
    fn deadline(&self) -> Option<Instant> {
        let limit = self.context.config.retry.max_elapsed?;
        self.start.checked_add(limit)
    }

    /// Sends a request and follows redirects until the final response. Each call starts at the
    /// first URL, because the target of a redirect may have expired.
    pub(crate) async fn send(
        &self,
        fields: &[(String, String)],
    ) -> Result<(Response, RedirectChain), Error> {
        let Context { config, hosts, .. } = self.context;
        let mut chain = RedirectChain::new(self.source.clone(), self.headers, config)?;
        loop {
            // Further connections of a file already have their permits.
            match self.slot {
                Some(slot) => {
                    let permit = hosts.acquire(chain.url(), slot, self.deadline()).await?;
                    chain.hold_permit(permit);
                }
                None => hosts.wait(chain.url(), None, self.deadline()).await?,
            }
            let response = self.get(&chain, fields).await?;
            if !is_redirect(response.status()) {
                return Ok((response, chain));
            }
            let location = response.header("location").map(<[u8]>::to_vec);
            chain.record_disposition(response.header("content-disposition"));
            // Drained before `follow`, which releases the permit for this host.
            Box::pin(drain_body(response)).await;
            chain.follow(location.as_deref(), config)?;
            debug!(to = %redact_url(chain.url()), "redirected");
        }
    }

    /// Sends one request, again if the server requests Digest authentication.
    async fn get(
        &self,
        chain: &RedirectChain,
        own: &[(String, String)],
    ) -> Result<Response, Error> {
        let url = chain.url();
        let Credentials {
            password_scheme,
            jar,
            ..
        } = &self.context.config.credentials;
        let mut authentication = chain.password().map(|login| {
            let sessions = &self.context.digest;
            sessions.authenticate(url.origin(), login.clone(), *password_scheme)
        });
        loop {
            let mut fields = merge_fields(chain.headers(), own);
            if let Some(authentication) = &mut authentication {
                let target = &url[Position::BeforePath..Position::AfterQuery];
                let value = authentication.value("GET", target);
                fields.extend(value.map(|value| ("Authorization".to_owned(), value)));
            }
            let sent = self
                .context
                .client
                .get_in_zone(url, chain.zone(), &fields)
                .await;
            let response = sent.map_err(|error| self.failed(Some(url), error))?;
            self.context.hosts.record_response(url);
            jar.store(url, response.headers("set-cookie"));
            let is_repeated = response.status() == 401
                && authentication.as_mut().is_some_and(|authentication| {
                    authentication.is_repeated_after(challenges(&response))
                });
            if !is_repeated {
                return Ok(response);
            }
            debug!(url = %redact_url(url), "Digest authentication");
            Box::pin(drain_body(response)).await;
        }
    }

    /// Adds the URL of the request to an HTTP error if a redirect led to it.
    pub(crate) fn failed(&self, requested: Option<&Url>, error: impl Into<Error>) -> Error {
        match (error.into(), requested) {
            (error @ Error::Http(_), Some(requested)) if *requested != self.source.url => {
                Error::Redirected {
                    url: redact_url(requested),
                    source: Box::new(error),
                }
            }
            (error, _) => error,
        }
    }

    /// Returns the rate limits that apply to a body.
    pub(crate) fn rate_limits(&self) -> Vec<RateLimitHandle> {
        self.context
            .rate
            .iter()
            .chain(self.rate)
            .map(SharedRateLimiter::handle)
            .collect()
    }

    /// Returns the error of a response that is not a file (RFC 9110 section 15). The `Retry-After`
    /// of a response that is retried delays all requests to the host.
    pub(crate) async fn status_error(&self, response: Response, chain: &RedirectChain) -> Error {
        let status = response.status();
        // Only a response to a range request or a conditional request can have these.
        if matches!(status, 206 | 304) {
            return Error::UnexpectedStatus { status };
        }
        let delay = response
            .header("retry-after")
            .and_then(|value| retry_after(value, response.header("date")));
        if let Some(delay) = delay
            && self.context.config.retry.delays_host(status)
        {
            let max_delay = self.context.config.retry.max_retry_after();
            self.context.hosts.back_off(chain.url(), delay, max_delay);
        }
        let scheme = self.context.config.credentials.password_scheme;
        let unsupported = if status == 401 {
            challenges(&response).unsupported(scheme)
        } else {
            None
        };
        Box::pin(drain_body(response)).await;
        let url = chain.is_redirected().then(|| redact_url(chain.url()));
        if let Some(schemes) = unsupported {
            return Error::AuthScheme {
                status,
                url,
                schemes,
            };
        }
        Error::Status {
            status,
            url,
            retry_after: delay,
        }
    }
}

fn challenges(response: &Response) -> Challenges {
    Challenges::parse(response.headers("www-authenticate"))
}

/// Returns the header fields that request the bytes from `from` up to but not including `end`, of
/// the version in `if_range` (RFC 9110 sections 13.1.5 and 14.2).
pub(crate) fn range_headers(
    from: u64,
    end: Option<u64>,
    if_range: Option<&str>,
) -> Vec<(String, String)> {
    let last = end.map(|end| (end - 1).to_string()).unwrap_or_default();
    let range = ("Range".to_owned(), format!("bytes={from}-{last}"));
    let condition = if_range.map(|version| ("If-Range".to_owned(), version.to_owned()));
    [range].into_iter().chain(condition).collect()
}

/// Merges the fields of the user with our own. `Accept-Encoding` of the user replaces ours: two
/// fields of one name are one list (RFC 9110 section 5.3).
fn merge_fields(given: &[(String, String)], own: &[(String, String)]) -> Vec<(String, String)> {
    let is_accept_encoding =
        |(name, _): &&(String, String)| name.eq_ignore_ascii_case("accept-encoding");
    let is_given = given.iter().any(|field| is_accept_encoding(&field));
    let own = own
        .iter()
        .filter(|field| !(is_given && is_accept_encoding(field)));
    given.iter().chain(own).cloned().collect()
}

/// Reads the rest of an unwanted body, if it is short.
pub(crate) async fn drain_body(response: Response) {
    if response
        .length()
        .is_some_and(|length| length <= MAX_DRAINED_LEN)
    {
        // On failure the connection is closed instead of reused; there is nothing to report.
        let _ = timeout(Some(DRAIN_TIMEOUT), copy(response, sink())).await;
    }
}
