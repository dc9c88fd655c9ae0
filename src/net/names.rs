//! Names that were resolved, remembered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol::lock::OnceCell;

use super::address::Address;
use super::connect::{ConnectError, resolve};

/// The most names that are remembered; with more, all are forgotten.
const MOST: usize = 1024;

type Found = Arc<OnceCell<Vec<SocketAddr>>>;

/// A memory for what names resolve to. Who asks for a name that is being resolved waits for the
/// same answer. A failure is not remembered.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<HashMap<Address, Found>>,
}

impl Names {
    /// Finds the socket addresses of `address`, as [`resolve`] does.
    ///
    /// # Errors
    ///
    /// Those of [`resolve`].
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, others who wait for the same name ask again.
    pub async fn resolve(&self, address: &Address) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = self.entry(address);
        found.get_or_try_init(|| resolve(address)).await.cloned()
    }

    /// Forgets what `address` resolves to: nobody answers there.
    pub fn forget(&self, address: &Address) {
        self.lock().remove(address);
    }

    fn entry(&self, address: &Address) -> Found {
        let mut known = self.lock();
        if let Some(found) = known.get(address) {
            return found.clone();
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.entry(address.clone()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Found>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::Host;
    use futures_lite::future::{block_on, zip};

    #[test]
    fn what_was_found_is_remembered_until_it_is_forgotten() {
        let names = Names::default();
        let localhost = Address { host: Host::Name("localhost".into()), port: 80 };
        let (one, other) = block_on(zip(names.resolve(&localhost), names.resolve(&localhost)));
        assert_eq!(one.unwrap(), other.unwrap());
        assert!(names.entry(&localhost).is_initialized());
        names.forget(&localhost);
        assert!(!names.entry(&localhost).is_initialized());
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let names = Names::default();
        for port in 1..=u16::try_from(MOST).unwrap() + 1 {
            block_on(names.resolve(&Address::loopback(port))).unwrap();
        }
        assert_eq!(names.lock().len(), 1);
    }
}
