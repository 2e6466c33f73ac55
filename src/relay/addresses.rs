//! How many connections there are from each address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Bits of an IPv6 address that its network gives out; the others are up to one household.
const NETWORK_BITS: u32 = 64;

/// Counts connections by where they come from.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Connections that each may have; 0 for any number.
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One counted connection. Dropped, there is room again.
#[derive(Debug)]
pub(super) struct Place(Option<(Arc<Addresses>, IpAddr)>);

impl Addresses {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A place for a connection from this address, unless it has too many.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let Some(network) = network(ip).filter(|_| self.most > 0) else {
            return Some(Place(None));
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), network))))
    }

    fn leave(&self, network: IpAddr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((addresses, network)) = self.0.take() {
            addresses.leave(network);
        }
    }
}

/// What is counted together: an address, or an IPv6 network, of which one machine has all
/// addresses. This machine is not counted: a proxy on it stands for all who come through it.
fn network(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical() {
        ip if ip.is_loopback() => None,
        IpAddr::V6(ip) => {
            let bits = ip.to_bits() & (u128::MAX << (u128::BITS - NETWORK_BITS));
            Some(Ipv6Addr::from_bits(bits).into())
        }
        IpAddr::V4(ip) => Some(ip.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_so_many_and_more_when_some_have_left() {
        let addresses = Addresses::new(2);
        let first = addresses.enter(ip("192.0.2.1")).unwrap();
        let _second = addresses.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(addresses.enter(ip("192.0.2.1")).is_none());
        let other = addresses.enter(ip("192.0.2.2")).unwrap();
        drop(first);
        let _third = addresses.enter(ip("192.0.2.1")).unwrap();
        assert!(addresses.enter(ip("192.0.2.1")).is_none());
        drop(other);
        assert_eq!(addresses.open.lock().unwrap().len(), 1, "who has none is forgotten");
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let addresses = Addresses::new(1);
        let _first = addresses.enter(ip("2001:db8:1:2::1")).unwrap();
        assert!(addresses.enter(ip("2001:db8:1:2:ffff::2")).is_none());
        assert!(addresses.enter(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn this_machine_has_any_number_and_so_has_everybody_without_a_limit() {
        let addresses = Addresses::new(1);
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let places = [addresses.enter(ip(loopback)), addresses.enter(ip(loopback))];
            assert!(places.iter().all(Option::is_some), "{loopback}");
        }
        let without = Addresses::new(0);
        let places = [without.enter(ip("192.0.2.1")), without.enter(ip("192.0.2.1"))];
        assert!(places.iter().all(Option::is_some));
    }
}
