//! Connections to the server, bound to the thread that opens them.

use std::io::ErrorKind;
use std::time::Instant;

use crate::echo::config::Server;
use crate::echo::retrying;
use crate::limits::deadline::before;
use crate::net::address::Address;
use crate::net::connect::{ConnectError, connect_here};
use crate::net::names::Names;
use crate::net::stream::Stream;
use crate::runtime::Timer;

/// Opens connections to one server, whose name is resolved once.
#[derive(Debug)]
pub(crate) struct Opener {
    server: Server,
    names: Names,
}

impl Opener {
    pub(crate) fn new(server: &Server) -> Self {
        Self { server: server.clone(), names: Names::default() }
    }

    /// Connects, as often as the server allows, on a thread of the runtime.
    pub(crate) async fn open(&self) -> Result<Stream, ConnectError> {
        retrying(&self.server, || self.attempt()).await
    }

    async fn attempt(&self) -> Result<Stream, ConnectError> {
        let Server { address, timeout: limit, .. } = &self.server;
        let failed = |source| ConnectError::Connect { address: address.clone(), source };
        let work = async {
            match address {
                Address::Tcp(endpoint) | Address::Tls(endpoint) => {
                    let found = self.names.resolve(endpoint).await?;
                    connect_here(endpoint, found).await
                }
                Address::Unix(path) => Stream::connect_unix(path).await.map_err(failed),
                Address::Udp(_) => Err(failed(ErrorKind::Unsupported.into())),
            }
        };
        let alarm = Instant::now().checked_add(*limit).map_or_else(Timer::never, Timer::at);
        let timed_out = ConnectError::TimedOut { address: address.clone(), limit: *limit };
        let opened = before(alarm, work).await.unwrap_or(Err(timed_out));
        if let (Err(_), Address::Tcp(endpoint) | Address::Tls(endpoint)) = (&opened, address) {
            self.names.forget(endpoint);
        }
        opened
    }
}
