//! What a server listens on.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;

use crate::limits::nofile;
use crate::net::address::{Address, Endpoint};
use crate::net::listener::Listener;
use crate::net::tls::TlsServer;
use crate::net::udp::{BoundUdp, is_datagram_socket};
use crate::serve::config::Config;
use crate::serve::error::Error;

/// A socket of one thread, and how those are spoken to who come through it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) tls: Option<TlsServer>,
}

/// The sockets of one thread.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) doors: Vec<Door>,
    pub(super) datagrams: Vec<BoundUdp>,
}

/// The sockets of all threads.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) shards: Vec<Sockets>,
    /// Where they listen, in the order in which they were opened.
    pub(super) addresses: Vec<Address>,
}

impl Doors {
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        Self {
            shards: (0..threads.get()).map(|_| Sockets::default()).collect(),
            addresses: Vec::new(),
        }
    }

    /// The number of connections for which there are descriptors beside those of all threads.
    pub(super) fn room(&self) -> NonZeroUsize {
        let own =
            |shard: &Sockets| nofile::FDS_PER_WORKER + shard.doors.len() + shard.datagrams.len();
        nofile::available_after(self.shards.iter().map(own).sum())
    }

    /// Listens on an address, with a socket for each thread.
    pub(super) async fn open(
        &mut self,
        address: &Address,
        config: &Config,
        tls: Option<&TlsServer>,
    ) -> Result<(), Error> {
        let count = config.threads;
        match (address, tls) {
            (Address::Tcp(endpoint), _) => {
                self.add(Listener::bind(endpoint, count).await?, None);
            }
            (Address::Tls(endpoint), Some(tls)) => {
                let bound = Listener::bind(endpoint, count).await;
                self.add(bound.map_err(|error| error.of(address))?, Some(tls));
            }
            (Address::Tls(_), None) => {
                return Err(Error::NoCertificate {
                    address: address.clone(),
                });
            }
            (Address::Unix(path), _) => {
                self.add(Listener::bind_unix(path, config.unix_mode, count)?, None);
            }
            (Address::Udp(endpoint), _) => {
                self.add_bound(BoundUdp::bind(endpoint, count).await?, |local| {
                    endpoint.bound(local)
                });
            }
        }
        Ok(())
    }

    /// Takes over a socket that is bound already. One for datagrams is served on one thread.
    pub(super) fn adopt(&mut self, socket: OwnedFd, config: &Config) -> Result<(), Error> {
        if is_datagram_socket(&socket) {
            self.add_bound(vec![BoundUdp::adopt(socket)?], Endpoint::from);
        } else {
            self.add(Listener::adopt(socket, config.threads)?, None);
        }
        Ok(())
    }

    fn add_bound(&mut self, sockets: Vec<BoundUdp>, shown: impl Fn(SocketAddr) -> Endpoint) {
        let local = sockets
            .first()
            .map(|bound| Address::Udp(shown(bound.local_addr())));
        self.addresses.extend(local);
        for (shard, bound) in self.shards.iter_mut().zip(sockets) {
            shard.datagrams.push(bound);
        }
    }

    fn add(&mut self, listeners: Vec<Listener>, tls: Option<&TlsServer>) {
        if let Some(first) = listeners.first() {
            self.addresses
                .push(match (first.local_addr().clone(), tls) {
                    (Address::Tcp(endpoint), Some(_)) => Address::Tls(endpoint),
                    (address, _) => address,
                });
        }
        for (shard, listener) in self.shards.iter_mut().zip(listeners) {
            shard.doors.push(Door {
                listener,
                tls: tls.cloned(),
            });
        }
    }
}
