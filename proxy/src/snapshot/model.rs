//! What an exchange reads, laid out for reading.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use clawgate_shared::catalogue::{self, Vendor};
use clawgate_shared::glob::lists_model;
use clawgate_shared::network::Network;
use clawgate_shared::pricing::Sources;
use clawgate_shared::token::TokenHash;
use http::HeaderValue;

use crate::limits::{Gate, QuotaRule};
use crate::routing::{Glob, Key, Names, Pool};

/// A SHA-256 is a hash already: its first eight bytes serve as one.
#[derive(Default)]
pub struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.0 = u64::from_ne_bytes(first);
    }

    fn write_usize(&mut self, _len: usize) {}
}

type TokenMap = HashMap<TokenHash, TokenEntry, BuildHasherDefault<Prehashed>>;

/// One configuration.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// `generation-revision-hash` (hash cut to 12 characters).
    pub version: Arc<str>,
    /// The same as the `x-clawgate-config` header.
    pub version_header: Option<HeaderValue>,
    /// Bots by the hash of each of their tokens.
    pub tokens: TokenMap,
    /// Seconds without contact after which nothing is served; 0: no limit.
    pub max_config_age_secs: u64,
    /// How many bots, for the log.
    pub bots: usize,
    /// Provider keys, enabled ones only.
    pub keys: Vec<Arc<Key>>,
}

/// What a token leads to.
#[derive(Clone, Debug)]
pub struct TokenEntry {
    /// Whose it is.
    pub bot: Arc<Bot>,
    /// Unix microseconds; 0: never.
    pub expires_at_micros: i64,
    /// Where it is good from; `None`: anywhere.
    pub network: Option<Network>,
}

/// Whether a bot may call at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BotState {
    /// Yes.
    Enabled,
    /// An admin switched it off.
    Disabled,
    /// Stopped for now, by an admin or a rule.
    Suspended,
}

/// A tenant, as far as exchanges need it.
#[derive(Debug)]
pub struct Tenant {
    /// `ten_…`
    pub id: Arc<str>,
    /// Nobody of it is served.
    pub suspended: bool,
    /// What models cost, for quotas that count money.
    pub prices: Arc<Sources>,
    /// Its own vendors, by slug.
    pub vendors: HashMap<String, Arc<Vendor>>,
    /// Its rate and concurrency limits, if it has any.
    pub gate: Option<Arc<Gate>>,
}

impl Tenant {
    /// A vendor by slug: built-in ones first, they cannot be shadowed.
    #[must_use]
    pub fn vendor(&self, slug: &str) -> Option<&Vendor> {
        catalogue::find(slug).or_else(|| self.vendors.get(slug).map(Arc::as_ref))
    }
}

/// A bot, as far as exchanges need it.
#[derive(Debug)]
pub struct Bot {
    /// `bot_…`
    pub id: Arc<str>,
    /// Its name in URLs and logs.
    pub hostname: Arc<str>,
    /// Owner.
    pub tenant: Arc<Tenant>,
    /// Empty: none.
    pub project_id: Arc<str>,
    /// See [`BotState`].
    pub state: BotState,
    /// Key tags it requires.
    pub tags: Vec<String>,
    /// Empty: every vendor.
    pub allowed_vendors: Vec<String>,
    /// Empty: every model.
    pub allowed_models: Vec<Glob>,
    /// Those of them that name one model.
    pub literal_models: Vec<String>,
    /// What its names of models stand for, and what is tried after them.
    pub names: Names,
    /// Whether account resources may be called.
    pub account_resources: bool,
    /// Keep reading the vendor's answer when the client goes.
    pub drain_on_disconnect: bool,
    /// Never ask a vendor for usage on the bot's behalf.
    pub never_include_usage: bool,
    /// Copied into each usage row.
    pub labels: Vec<(String, String)>,
    /// Quotas of the bot itself, its project and its tenant.
    pub quotas: Vec<Arc<QuotaRule>>,
    /// Its rate and concurrency limits, if it has any.
    pub gate: Option<Arc<Gate>>,
    /// Output limit for requests that have none, under a strict quota.
    pub default_max_tokens: Option<u64>,
    /// Key pools by vendor slug.
    pub pools: HashMap<Arc<str>, Pool>,
}

impl Bot {
    /// Whether the bot may use this vendor.
    #[must_use]
    pub fn allows_vendor(&self, slug: &str) -> bool {
        self.allowed_vendors.is_empty() || self.allowed_vendors.iter().any(|allowed| allowed == slug)
    }

    /// Whether a model of a vendor is on the bot's list, by its own name or with
    /// the vendor's before a slash.
    #[must_use]
    pub fn allows_model(&self, vendor: &str, model: &str) -> bool {
        lists_model(&self.allowed_models, vendor, model)
    }
}
