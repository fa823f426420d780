//! The memory that request bodies take, all together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Request bodies held in memory: each, and all together.
#[derive(Debug)]
pub struct BodyBudget {
    /// Largest one, in bytes.
    pub each: usize,
    held: AtomicUsize,
    total: usize,
}

/// A body's share of the budget; given back when dropped.
#[must_use]
#[derive(Debug)]
pub struct Held<'a> {
    budget: &'a BodyBudget,
    bytes: usize,
}

impl BodyBudget {
    /// `each` bytes for one body, `total` for all at once.
    #[must_use]
    pub const fn new(each: usize, total: usize) -> Self {
        Self { each, held: AtomicUsize::new(0), total }
    }

    /// An empty share.
    pub(super) const fn hold(&self) -> Held<'_> {
        Held { budget: self, bytes: 0 }
    }
}

impl Held<'_> {
    /// Takes `bytes` more; false: there is no room for them. To be asked as they
    /// arrive, not when the body is whole: a slow one takes memory all the while.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before.saturating_add(bytes) <= self.budget.total
    }

    /// Gives `bytes` back before the rest.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_as_they_grow_and_given_back() {
        let budget = BodyBudget::new(10, 15);
        let (mut one, mut other) = (budget.hold(), budget.hold());
        assert!(one.grow(5) && one.grow(5) && other.grow(5) && !other.grow(1));
        drop(other);
        assert!(budget.hold().grow(5));
        one.shrink(4);
        assert_eq!(budget.held.load(Ordering::Relaxed), 6);
        drop(one);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
