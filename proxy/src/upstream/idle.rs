//! Connections that wait for the next request, per address.
//!
//! A plain stack: the newest goes first, so that old ones can grow cold and be
//! closed. No task watches a waiting connection; whether it is still good is
//! looked at when it is taken, which is the only moment that counts, and now
//! and then by [`Idle::sweep`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::io::AsyncReadExt as _;

use super::stream::VendorStream;

/// Connections kept per address; what is given back beyond them is closed.
const MAX_IDLE: usize = 512;
/// How long a connection waits at most.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Idle connections to one address.
#[derive(Debug, Default)]
pub(super) struct Idle {
    waiting: Mutex<Vec<(Instant, Box<VendorStream>)>>,
}

impl Idle {
    /// The newest connection that is still good. Others that are found dead on
    /// the way are closed.
    pub(super) fn take(&self) -> Option<Box<VendorStream>> {
        loop {
            // Not under the lock: looking at a TLS connection may take a while.
            let (since, mut stream) = self.lock().pop()?;
            if since.elapsed() < IDLE_FOR && is_quiet(&mut stream) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn put(&self, stream: Box<VendorStream>) {
        let mut waiting = self.lock();
        if waiting.len() < MAX_IDLE {
            waiting.push((Instant::now(), stream));
        }
    }

    /// Closes those that have waited too long or were closed by the vendor.
    pub(super) fn sweep(&self) {
        let all = std::mem::take(&mut *self.lock());
        let mut kept: Vec<_> = all
            .into_iter()
            .filter_map(|(since, mut stream)| {
                (since.elapsed() < IDLE_FOR && is_quiet(&mut stream)).then_some((since, stream))
            })
            .collect();
        let mut waiting = self.lock();
        // What came meanwhile is newer.
        kept.append(&mut waiting);
        *waiting = kept;
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Box<VendorStream>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Neither closed nor with a byte that nobody asked for, as far as is known
/// here; the rest shows when the next request is sent.
fn is_quiet(stream: &mut VendorStream) -> bool {
    let mut byte = [0; 1];
    // Unconstrained: a task out of budget must not make a dead one look alive.
    tokio::task::unconstrained(stream.read(&mut byte)).now_or_never().is_none()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn dead_and_chatty_connections_are_not_given_out() {
        let idle = Idle::default();
        let (good, _far_good) = duplex(64);
        let (closed, far_closed) = duplex(64);
        let (chatty, mut far_chatty) = duplex(64);
        for near in [good, closed, chatty] {
            idle.put(Box::new(VendorStream::new(Box::new(near))));
        }
        drop(far_closed);
        far_chatty.write_all(b"HTTP/1.1 408").await.unwrap();
        assert!(idle.take().is_some());
        assert!(idle.take().is_none());
    }

    #[tokio::test]
    async fn a_sweep_closes_what_the_vendor_closed_and_keeps_the_rest() {
        let idle = Idle::default();
        let (good, _far_good) = duplex(64);
        let (closed, far_closed) = duplex(64);
        for near in [good, closed] {
            idle.put(Box::new(VendorStream::new(Box::new(near))));
        }
        drop(far_closed);
        idle.sweep();
        assert_eq!(idle.len(), 1);
    }

    #[tokio::test]
    async fn there_is_a_most() {
        let idle = Idle::default();
        let mut far = Vec::new();
        for _ in 0..=MAX_IDLE {
            let (near, other) = duplex(1);
            far.push(other);
            idle.put(Box::new(VendorStream::new(Box::new(near))));
        }
        assert_eq!(idle.len(), MAX_IDLE);
    }
}
