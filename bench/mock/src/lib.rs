//! The mock vendor: a test tool that speaks the vendors' dialects and keeps the
//! ledger every metering test is judged by.
//!
//! Invariant: nothing here comes from the gateway's crates, so that a bug in
//! one cannot hide in the other; the same request always gets the same bytes
//! (ids and times included); every request that was read whole is in the
//! ledger exactly once.
//! Deliberately absent: TLS, HTTP/2, WebSocket, any real model.

mod admin;
mod answer;
mod config;
mod credentials;
mod dialect;
mod disguise;
mod http;
mod knobs;
mod ledger;
mod plan;
mod replay;
mod rng;
mod rules;
mod send;
mod stored;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use config::{MockConfig, environment_knobs};
pub use knobs::{Fault, FaultKind, Flush, KnobError, Knobs, UsageVariant};
pub use ledger::{Ended, Ledger, LedgerTarget, Totals, sha256_hex};
pub use replay::{Recording, ReplayError, Replays};

use http::Shared;

/// Serves until `shutdown` completes, then drops every connection and writes
/// the ledger's last lines.
///
/// # Errors
/// Only when the listener itself fails for good; a failed accept is retried.
pub async fn serve(listener: TcpListener, config: MockConfig, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let ledger = Arc::clone(&config.ledger);
    let shared = Arc::new(Shared::new(config));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(http::serve_connection(stream, shared));
                }
                // Out of file descriptors or a peer that left in the queue:
                // neither is a reason to stop serving the others.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            // Finished connections are reaped so that the set stays as large
            // as the number of open ones.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
    ledger.flush()
}
