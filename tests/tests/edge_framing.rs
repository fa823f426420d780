//! What arrives at the listener is read in one way or not at all: framing,
//! HTTP/2, TLS, credentials, headers, paths and addresses.

#[path = "edge_framing/addresses.rs"]
mod addresses;
#[path = "edge_framing/credentials.rs"]
mod credentials;
#[path = "edge_framing/h1.rs"]
mod h1;
#[path = "edge_framing/h2.rs"]
mod h2;
#[path = "edge_framing/tls.rs"]
mod tls;
