//! Authentication to an HTTP proxy (RFC 9110 section 11.7).

use super::authentication::{Authentication, Challenges, DigestSessions, PasswordScheme};
use super::error::{HttpError, ProxyError};
use super::proxy::Proxy;
use super::response_head::ResponseHead;

/// Authentication of one request.
pub(super) struct ProxyAuth<'a> {
    proxy: Proxy,
    scheme: PasswordScheme,
    /// `None` without a password, and if a given header replaces it.
    authentication: Option<Authentication<'a, Proxy>>,
}

impl<'a> ProxyAuth<'a> {
    pub(super) fn new(
        proxy: Proxy,
        sessions: &'a DigestSessions<Proxy>,
        scheme: PasswordScheme,
    ) -> Self {
        let login = match proxy.given_authorization() {
            None => proxy.basic_auth.clone(),
            Some(_) => None,
        };
        let authenticate = |login| sessions.authenticate(proxy.clone(), login, scheme);
        Self {
            authentication: login.map(authenticate),
            proxy,
            scheme,
        }
    }

    /// Returns the value of `Proxy-Authorization`.
    pub(super) fn value(&mut self, method: &str, target: &str) -> Option<String> {
        match &mut self.authentication {
            Some(authentication) => authentication.value(method, target),
            None => self.proxy.given_authorization().map(str::to_owned),
        }
    }

    /// Processes a response with status 401 or 407. Success means to repeat the request.
    ///
    /// # Errors
    ///
    /// [`ProxyError::AuthRequired`], [`ProxyError::AuthRejected`] or [`ProxyError::AuthScheme`].
    pub(super) fn check_challenge(&mut self, head: &ResponseHead) -> Result<(), ProxyError> {
        let challenges = Challenges::parse(head.values("proxy-authenticate"));
        if let Some(schemes) = challenges.unsupported(self.scheme) {
            return Err(ProxyError::AuthScheme { schemes });
        }
        match &mut self.authentication {
            Some(authentication) => {
                if authentication.is_repeated_after(challenges) {
                    Ok(())
                } else {
                    Err(ProxyError::AuthRejected)
                }
            }
            None if self.proxy.given_authorization().is_some() => Err(ProxyError::AuthRejected),
            None => Err(ProxyError::AuthRequired),
        }
    }

    /// Returns whether a request that the proxy forwards is to be repeated with another
    /// authorization.
    pub(super) fn is_repeated(&mut self, head: &ResponseHead) -> Result<bool, HttpError> {
        if head.status() != 407 {
            return Ok(false);
        }
        match self.check_challenge(head) {
            Ok(()) => Ok(true),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Fails if the proxy requires another authorization of a request that cannot be repeated.
    pub(super) fn check_final(&mut self, head: &ResponseHead) -> Result<(), HttpError> {
        if self.is_repeated(head)? {
            let schemes = "Digest".to_owned();
            return Err(self.failed(ProxyError::AuthScheme { schemes }));
        }
        Ok(())
    }

    fn failed(&self, source: ProxyError) -> HttpError {
        HttpError::Proxy {
            proxy: self.proxy.to_string(),
            source,
        }
    }
}
