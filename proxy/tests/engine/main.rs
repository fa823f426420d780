//! What the engine (pingora-core under our own loop) must be able to do: the
//! questions that decided ADR-0001, kept as tests. Real sockets on loopback, a
//! scripted vendor, no control plane.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on must stop

mod cancelled;
mod connections;
mod durable_ids;
mod framing;
mod full_spool;
mod http2;
mod lifecycle;
mod small_writes;
mod support;
mod upgrade;
