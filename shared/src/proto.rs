//! The compiled protos: wire structs only. They are turned into domain types
//! where they arrive and never travel further (rule 3).

/// Node and control plane.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod node {
    tonic::include_proto!("clawgate.node.v1");
}

/// Runner and control plane.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod runner {
    tonic::include_proto!("clawgate.runner.v1");
}
