//! Time limit of what precedes the first message of a connection.

use std::time::Duration;

use futures_lite::future;

use crate::limits::shutdown::Shutdown;
use crate::runtime::Timer;

/// Time limit of handshakes in progress when the server drains.
const DRAIN_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Completes after `limit`, or soon after the server starts to drain.
///
/// # Cancel safety
///
/// Dropping the future loses nothing.
pub(super) async fn handshake_timeout(limit: Duration, draining: &Shutdown) {
    let drained = async {
        draining.wait().await;
        Timer::after(DRAIN_HANDSHAKE_TIMEOUT).await;
    };
    let limit = async {
        Timer::after(limit).await;
    };
    future::or(drained, limit).await;
}
