//! What the control plane does with its nodes: who they are, what they hold,
//! what they sent.
//!
//! Invariant: a node is named by the certificate it presents (or by the Unix
//! socket it could open), never by a message alone.
//! Deliberately absent: REST shapes, and anything about bots' containers.
//!
//! How the rest of the control plane uses it:
//!
//! ```text
//! // at start, after migrations and the vault
//! let fleet: Arc<Fleet> = Fleet::open(db, vault, FleetOptions {
//!     server_names: Vec<String>,        // further SANs of the gRPC certificate (names or addresses)
//!     max_config_age: Duration,         // default 24 h
//!     test_poison: bool,                // CLAWGATE_TEST_POISON
//! }).await?;                                             // Result<_, FleetError>
//! let tasks: Vec<JoinHandle<()>> = fleet.start(stop);    // stop: tokio::sync::watch::Receiver<bool>
//! grpc::serve_unix(&path, fleet.clone(), stop.clone())   // impl Future<Output = Result<(), ServeError>>
//! grpc::serve_mtls(listener, fleet.clone(), stop)        // tokio::net::TcpListener
//!
//! // by every domain write that bumped the config revision, after its commit
//! fleet.config_changed();
//! // by the REST layer, to fill `x-clawgate-rollout`
//! let counts: RolloutCounts = fleet.wait_rollout(revision /* u64 */, wait /* Duration */).await;
//! // counts.{acked,nacked,pending,disconnected}: u32; Display gives the header's text
//!
//! let nodes: Vec<NodeView> = fleet.list_nodes().await?;  // Result<_, StoreError>
//! // inside the caller's transaction, beside its audit row
//! let token: MintedEnrollToken = fleet.mint_enroll_token(tx /* &mut AnyConnection */).await?;
//! // token.{id: String, text: Zeroizing<String>, expires_at: i64}
//! fleet.set_poison(true);                                // test hook, wakes the publisher itself
//! ```
