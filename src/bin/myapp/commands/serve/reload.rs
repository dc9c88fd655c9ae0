//! Reload on SIGHUP: log file and TLS files.

use myapp::error_chain::ErrorChain;
use myapp::net::tls::TlsServer;
use tracing::{info, warn};

use crate::output::log::Log;
use crate::signals::ReloadSignal;

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
        Ok(reload) => info!(
            certificate_changed = reload.certificate_changed,
            client_ca_changed = reload.client_ca_changed,
            sha256 = %reload.fingerprint,
            "TLS files reloaded"
        ),
        Err(error) => {
            warn!(error = %ErrorChain(&error), "cannot reload the TLS files, keeping the current ones");
        }
    }
    true
}
