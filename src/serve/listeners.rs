//! Sockets of a server.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::limits::nofile;
use crate::net::address::{Address, Endpoint};
use crate::net::listener::{ListenError, Listener};
use crate::net::tls::TlsServer;
use crate::net::udp::{BoundUdp, is_datagram_socket};
use crate::serve::config::Config;
use crate::serve::error::Error;

/// A listening socket of one worker, and the TLS set-up of its connections.
#[derive(Debug)]
pub(super) struct BoundListener {
    pub(super) listener: Listener,
    pub(super) tls: Option<TlsServer>,
}

/// Socket that another program has bound, such as a service manager.
#[derive(Debug)]
pub struct InheritedSocket {
    /// A listening TCP or Unix socket, or a bound UDP socket.
    pub socket: OwnedFd,
    /// Whether the connections of a TCP socket use TLS, with [`Config::tls`].
    pub tls: bool,
}

/// The sockets of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerSockets {
    pub(super) listeners: Vec<BoundListener>,
    pub(super) datagrams: Vec<BoundUdp>,
}

/// The sockets of all workers.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) workers: Vec<WorkerSockets>,
    /// Bound addresses, in the order of binding.
    pub(super) addresses: Vec<Address>,
}

impl Listeners {
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        Self {
            workers: (0..threads.get())
                .map(|_| WorkerSockets::default())
                .collect(),
            addresses: Vec::new(),
        }
    }

    /// Returns the number of connections for which descriptors are left beside those of the
    /// workers.
    pub(super) fn available_connections(&self) -> NonZeroUsize {
        let used = |worker: &WorkerSockets| {
            nofile::FDS_PER_WORKER + worker.listeners.len() + worker.datagrams.len()
        };
        nofile::available_after(self.workers.iter().map(used).sum())
    }

    /// Binds an address, with one socket for each worker.
    pub(super) async fn bind(
        &mut self,
        address: &Address,
        config: &Config,
        tls: Option<&TlsServer>,
    ) -> Result<(), Error> {
        let count = config.threads;
        match (address, tls) {
            (Address::Tcp(endpoint), _) => {
                self.add(Listener::bind(endpoint, count).await?, None, config)?;
            }
            (Address::Tls(endpoint), Some(tls)) => {
                let bound = Listener::bind(endpoint, count).await;
                let bound = bound.map_err(|error| error.of(address))?;
                self.add(bound, Some(tls), config)?;
            }
            (Address::Tls(_), None) => {
                return Err(Error::MissingCertificate {
                    address: address.clone(),
                });
            }
            (Address::Unix(path), _) => {
                let listeners = Listener::bind_unix(path, config.unix_socket_mode, count)?;
                self.add(listeners, None, config)?;
            }
            (Address::Udp(endpoint), _) => {
                self.add_udp(BoundUdp::bind(endpoint, count).await?, |local| {
                    endpoint.bound(local)
                });
            }
        }
        Ok(())
    }

    /// Adds an inherited socket. A UDP socket is served by one worker.
    pub(super) fn adopt(
        &mut self,
        InheritedSocket {
            socket,
            tls: is_tls,
        }: InheritedSocket,
        config: &Config,
        tls: Option<&TlsServer>,
    ) -> Result<(), Error> {
        let descriptor = socket.as_raw_fd();
        if !is_tls && is_datagram_socket(&socket) {
            self.add_udp(vec![BoundUdp::adopt(socket)?], Endpoint::from);
            return Ok(());
        }
        let listeners = Listener::adopt(socket, config.threads)?;
        if !is_tls {
            return self.add(listeners, None, config);
        }
        match (listeners.first().map(Listener::local_addr), tls) {
            (Some(Address::Tcp(_)), Some(tls)) => self.add(listeners, Some(tls), config),
            (Some(Address::Tcp(endpoint)), None) => Err(Error::MissingCertificate {
                address: Address::Tls(endpoint.clone()),
            }),
            _ => {
                let source = io::Error::new(ErrorKind::InvalidInput, "TLS needs a TCP socket");
                Err(ListenError::Adopt { descriptor, source }.into())
            }
        }
    }

    fn add_udp(&mut self, sockets: Vec<BoundUdp>, endpoint: impl Fn(SocketAddr) -> Endpoint) {
        let local = sockets
            .first()
            .map(|bound| Address::Udp(endpoint(bound.local_addr())));
        self.addresses.extend(local);
        for (worker, bound) in self.workers.iter_mut().zip(sockets) {
            worker.datagrams.push(bound);
        }
    }

    fn add(
        &mut self,
        listeners: Vec<Listener>,
        tls: Option<&TlsServer>,
        config: &Config,
    ) -> Result<(), Error> {
        if let Some(first) = listeners.first() {
            let address = match (first.local_addr().clone(), tls) {
                (Address::Tcp(endpoint), Some(_)) => Address::Tls(endpoint),
                (address, _) => address,
            };
            self.addresses.push(address);
        }
        for (worker, listener) in self.workers.iter_mut().zip(listeners) {
            listener.set_keepalive(config.keepalive).map_err(|source| {
                let address = listener.local_addr().clone();
                ListenError::Bind { address, source }
            })?;
            worker.listeners.push(BoundListener {
                listener,
                tls: tls.cloned(),
            });
        }
        Ok(())
    }
}
