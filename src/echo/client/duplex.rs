//! Concurrent sending and receiving on one connection.

use std::future::Future;

use futures_lite::future;

/// Runs `send` concurrently with `receive`, since a server may reply before it has read
/// everything. Ends with `receive`, and returns the result of `send` if that has ended too.
pub(crate) async fn duplex<T, U>(
    send: impl Future<Output = T>,
    receive: impl Future<Output = U>,
) -> (Option<T>, U) {
    let mut sent = None;
    let sending = async {
        sent = Some(send.await);
        future::pending().await
    };
    // `send` is polled first: a line that is already buffered must not keep it from starting.
    let received = future::or(sending, receive).await;
    (sent, received)
}
