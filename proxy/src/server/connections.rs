//! Open connections, counted against caps: one for the node, one for each
//! source address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections against a cap; shared by all listeners of a node.
#[derive(Debug)]
pub(super) struct ConnectionCap {
    open: AtomicUsize,
    /// Of them, those whose first request was not answered yet.
    fresh: AtomicUsize,
    limit: usize,
}

impl ConnectionCap {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), fresh: AtomicUsize::new(0), limit })
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections whose first request was not answered yet.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.load(Ordering::Relaxed)
    }

    /// A place for a connection; `None`: all are taken.
    pub(super) fn enter(&self) -> Option<Place<'_>> {
        let place = Place(self);
        (self.open.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(place)
    }
}

/// One connection's place with the node; given back when dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Place<'a>(&'a ConnectionCap);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that waits for the answer to its first request.
pub(super) struct Fresh<'a>(&'a ConnectionCap);

impl<'a> Fresh<'a> {
    pub(super) fn new(cap: &'a ConnectionCap) -> Self {
        cap.fresh.fetch_add(1, Ordering::Relaxed);
        Self(cap)
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        self.0.fresh.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections by where they come from, so that one bot cannot take the places
/// of all. As large as there are sources with a connection.
#[derive(Debug)]
pub(super) struct SourceCap {
    open: Mutex<HashMap<IpAddr, usize>>,
    limit: usize,
}

/// One connection's place with its source; given back when dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct SourcePlace<'a>(&'a SourceCap, IpAddr);

impl SourceCap {
    pub(super) fn new(limit: usize) -> Self {
        Self { open: Mutex::default(), limit }
    }

    /// A place for a connection from `source`; `None`: it has as many as it may.
    pub(super) fn enter(&self, source: IpAddr) -> Option<SourcePlace<'_>> {
        let source = one_host(source);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(SourcePlace(self, source))
    }
}

impl Drop for SourcePlace<'_> {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 network of 64 bits,
/// within which a host may have any address it likes.
fn one_host(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_sources_forgotten() {
        let cap = ConnectionCap::new(1);
        let one = cap.enter();
        assert!(one.is_some() && cap.enter().is_none() && cap.enter().is_none());
        drop(one);
        assert!(cap.enter().is_some());

        let sources = SourceCap::new(2);
        let ip = |text: &str| text.parse::<IpAddr>().expect("ip");
        let held: Vec<_> = ["2001:db8::1", "2001:db8::2", "10.0.0.1", "::ffff:10.0.0.1"]
            .iter()
            .map(|text| sources.enter(ip(text)).expect("a place"))
            .collect();
        assert!(sources.enter(ip("2001:db8::3")).is_none() && sources.enter(ip("10.0.0.1")).is_none());
        assert!(sources.enter(ip("2001:db8:0:1::1")).is_some());
        drop(held);
        assert!(sources.open.lock().expect("lock").is_empty());
    }
}
