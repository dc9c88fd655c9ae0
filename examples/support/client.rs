//! Transport of surf for an example with an unknown host.

use myapp::download::http::{ClientConfig, Transport};
use myapp::net::resolver::{AddressFamily, ResolverConfig};

/// Returns a transport that cannot reach `www.urlinexistente.invalid`: the host has a static IPv6
/// address only, and IPv4 is required. So no DNS query leaves the machine.
pub fn transport_without_dns() -> surf::Result<Transport> {
    let resolver = ResolverConfig {
        family: AddressFamily::V4,
        fixed: vec!["www.urlinexistente.invalid:80:::1".parse()?],
    };
    let config = ClientConfig {
        resolver,
        ..ClientConfig::default()
    };
    Ok(Transport::new(config)?)
}
