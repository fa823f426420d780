//! What may be changed, by whom, under which rules.
//!
//! Invariant: one use case is one function and one transaction: permission,
//! rules, change, audit row, revision. It returns a typed result and the
//! revision that nodes must reach; nothing is half done. A resource of another
//! tenant is `NotFound`, never `Forbidden`.
//! Deliberately absent: HTTP, gRPC and JSON shapes, reads (`store` answers
//! those), waiting for nodes.

pub mod api_tokens;
pub mod auth;
pub mod bootstrap;
pub mod bots;
mod change;
pub mod error;
pub mod limits;
pub mod nodes;
pub mod prices;
pub mod projects;
pub mod provider_keys;
pub mod quotas;
pub mod resources;
pub mod roles;
mod rules;
pub mod tenants;
pub mod vendors;

use std::sync::Arc;

pub use clawgate_shared::egress;
pub use error::{DomainError, FieldError};
pub use roles::{Permission, Principal, Role};

use crate::runtime::subnet::BotPool;
use crate::store::Db;
use crate::vault::Vault;
use egress::PrivateUpstreams;

/// What every use case needs; cheap to clone.
#[derive(Clone, Debug)]
pub struct Domain {
    /// The truth.
    pub db: Db,
    /// Custody of secrets.
    pub vault: Arc<Vault>,
    /// Which private destinations provider keys may name.
    pub upstreams: Arc<PrivateUpstreams>,
    /// Where the networks of bots that we run come from.
    pub pool: BotPool,
}

/// Who asks, and from where: what an audit row says.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who, and what they may do.
    pub principal: Principal,
    /// Address; empty: none.
    pub ip: String,
    /// As sent; cut to 256 characters in the audit row.
    pub user_agent: String,
}

impl Caller {
    /// The installation itself, for what happens at start.
    #[must_use]
    pub fn system() -> Self {
        Self { principal: Principal::system(), ip: String::new(), user_agent: String::new() }
    }
}

/// The result of a committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// What there is now.
    pub value: T,
    /// What nodes must reach; `None`: the change is none of theirs.
    pub revision: Option<u64>,
}
