//! Admin endpoint: reads and changes the faults of a running server over HTTP, and reads its
//! counters.

mod json;

use std::sync::Arc;

use serde_json::{Value, json};
use tracing::info;

use crate::serve::config::FaultInjection;
use crate::serve::fault::handle::Faults;
use crate::serve::http::{Request, Response};
use crate::serve::stats::ServerStats;

/// Media type of JSON (RFC 8259 section 11).
const CONTENT_TYPE: &str = "application/json";

/// State of the endpoint.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) faults: Faults,
    pub(super) stats: Arc<ServerStats>,
}

impl Admin {
    /// Returns the response to a request. `GET` reads, `PUT` replaces all faults but the seed, and
    /// `PATCH` changes some of them.
    pub(super) fn respond(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/faults") => self.current_faults(),
            ("PUT", "/faults") => {
                let none = FaultInjection {
                    seed: self.faults.get().seed,
                    ..FaultInjection::default()
                };
                self.change(&none, &request.content)
            }
            ("PATCH", "/faults") => self.change(&self.faults.get(), &request.content),
            (_, "/faults") => Response::method_not_allowed("GET, HEAD, PUT, PATCH"),
            ("GET" | "HEAD", "/stats") => {
                Response::ok(CONTENT_TYPE, format!("{}\n", json!(self.stats.summary())))
            }
            (_, "/stats") => Response::method_not_allowed("GET, HEAD"),
            _ => Response::not_found("only /faults and /stats exist"),
        }
    }

    fn current_faults(&self) -> Response {
        let faults = json::to_json(&self.faults.get());
        Response::ok(CONTENT_TYPE, format!("{}\n", Value::Object(faults)))
    }

    fn change(&self, base: &FaultInjection, object: &[u8]) -> Response {
        let changed = json::merge(base, object).and_then(|new| {
            let old = self
                .faults
                .set(new.clone())
                .map_err(|error| error.to_string())?;
            log_changes(&old, &new);
            Ok(())
        });
        match changed {
            Ok(()) => self.current_faults(),
            Err(cause) => Response::bad_request(&cause),
        }
    }
}

/// Logs each fault that has changed.
fn log_changes(old: &FaultInjection, new: &FaultInjection) {
    let old = json::to_json(old);
    for (fault, new) in json::to_json(new) {
        if let Some(old) = old.get(&fault)
            && *old != new
        {
            info!(%fault, %old, %new, "fault changed");
        }
    }
}
