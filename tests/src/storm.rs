//! Many requests over a few connections that are kept.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crate::http::{Connection, Request, Response};
use crate::wait::until;

/// More than any storm takes.
const LONGEST: Duration = Duration::from_secs(600);

/// Sends `request` `count` times over `connections` and looks at every answer;
/// `at_half` runs once, when half of them are under way.
///
/// # Panics
/// A connection fails, or `look` does.
pub fn storm(
    address: SocketAddr,
    connections: usize,
    request: &Request,
    count: usize,
    look: impl Fn(&Response) + Sync,
    at_half: impl FnOnce(),
) {
    let (next, look) = (AtomicUsize::new(0), &look);
    std::thread::scope(|scope| {
        let send = || {
            let mut connection = Connection::open(address).expect("connected");
            while next.fetch_add(1, Ordering::Relaxed) < count {
                look(&connection.call(request).expect("an answer"));
            }
        };
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(send)).collect();
        until("half of the requests", LONGEST, || {
            let half = next.load(Ordering::Relaxed) >= count / 2;
            (half || threads.iter().all(ScopedJoinHandle::is_finished)).then_some(())
        });
        at_half();
    });
}
