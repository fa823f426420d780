//! HTTP/1.1 by hand: a server that can also lie on the wire.
//!
//! Invariant: a request is read whole (head and body, both bounded) before it
//! is answered, and bytes of the next request stay in the buffer.
//! Deliberately absent: HTTP/2, TLS, trailers (read and dropped), compression
//! other than the fault of that name. A library would get in the way here:
//! faults are made of bytes that no correct server writes.

mod connection;
mod request;

pub(crate) use connection::{Shared, serve_connection};
pub(crate) use request::{Head, Request};
