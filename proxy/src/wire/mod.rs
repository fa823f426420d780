//! What the bytes on the wire mean.
//!
//! Invariant: sans-IO. Bytes come in, bytes or ranges of them go out; the same
//! bytes give the same answer however they were cut. Nothing here allocates per
//! chunk in the steady state, and every buffer has a named limit.
//! Deliberately absent: clocks, tasks, sockets, configuration, prices, and any
//! DOM of a body: what is not asked for is skipped, never built.

mod collect;
pub mod dialog;
pub mod error;
pub mod eventstream;
pub mod head;
pub mod input;
mod json;
pub mod made;
pub mod ndjson;
pub mod peek;
pub mod references;
pub mod splice;
pub mod sse;
pub mod strip;
pub mod tokens;
pub mod usage;
pub mod websocket;

pub use error::{Code, KeyReason, Rendered};
pub use head::{HeadEnd, HeadFault, check_head, check_target};
pub use input::{Input, input};
pub use peek::{Peek, PeekError, peek};
pub use splice::Splice;
pub use strip::UsageStripper;
pub use tokens::{Counter, Vocabulary};
pub use usage::{Meter, PromptSize, Report, Sample, Scale, TextSize};
