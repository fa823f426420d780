//! What may be changed, by whom, under which rules.
//!
//! Invariant: one use case is one function and one transaction: permission,
//! rules, change, audit row, revision. It returns a typed result and the
//! revision that nodes must reach; nothing is half done.
//! Deliberately absent: HTTP, gRPC and JSON shapes, reads (`store` answers
//! those), waiting for nodes.

pub use clawgate_shared::egress;
