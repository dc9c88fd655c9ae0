//! Reload on SIGHUP: log file and TLS files.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use myapp::error_chain::ErrorChain;
use myapp::net::tls::TlsServer;
use tracing::{info, warn};

use crate::output::log::Log;
use crate::signals::ReloadSignal;

/// Remaining validity of a certificate below which its expiry is logged: 7 days.
const EXPIRY_WARNING_SECONDS: i64 = 7 * 24 * 3600;

/// Reloads on each signal. Never returns.
///
/// # Cancel safety
///
/// A reload that has begun is completed on the blocking pool.
pub(super) async fn reload_on_signal<T>(
    mut signal: ReloadSignal,
    log: &Log,
    tls: Option<TlsServer>,
) -> T {
    loop {
        signal.next().await;
        let log_reopened = reopen_log(log).await;
        let tls_reloaded = reload_tls(tls.as_ref()).await;
        if !log_reopened && !tls_reloaded {
            info!("SIGHUP: no log file and no TLS files to reload");
        }
    }
}

/// Returns whether there is a log file.
async fn reopen_log(log: &Log) -> bool {
    match log.reopen().await {
        None => return false,
        Some(Ok(true)) => info!("log file reopened: new file"),
        Some(Ok(false)) => info!("log file reopened: same file"),
        Some(Err(error)) => {
            warn!(error = %ErrorChain(&error), "cannot reopen the log file, keeping the current one");
        }
    }
    true
}

/// Returns whether there are TLS files.
async fn reload_tls(tls: Option<&TlsServer>) -> bool {
    let Some(tls) = tls else { return false };
    match tls.reload().await {
        Ok(None) => return false,
        Ok(Some(reload)) => {
            info!(
                certificate_changed = reload.certificate_changed,
                client_ca_changed = reload.client_ca_changed,
                sha256 = %reload.fingerprint,
                "TLS files reloaded"
            );
            warn_of_expiry(tls);
        }
        Err(error) => {
            warn!(error = %ErrorChain(&error), "cannot reload the TLS files, keeping the current ones");
        }
    }
    true
}

/// Logs a certificate that has expired, or will soon.
pub(super) fn warn_of_expiry(tls: &TlsServer) {
    let Some(not_after) = tls.certificate_not_after() else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let remaining = not_after - now.map_or(0, |now| now.as_secs() as i64);
    if remaining >= EXPIRY_WARNING_SECONDS {
        return;
    }
    let date = UNIX_EPOCH + Duration::from_secs(not_after.max(0) as u64);
    let not_after = httpdate::fmt_http_date(date);
    let not_after = not_after.as_str();
    if remaining <= 0 {
        warn!(not_after, "the certificate has expired");
    } else {
        warn!(not_after, "the certificate expires soon");
    }
}
