//! From the wire's resources to the read model. All or nothing; every reason
//! is collected, so that an admin mends a snapshot in one go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use clawgate_shared::catalogue::{AuthForm, CustomVendor, IncludeUsage, Vendor, base_for_key};
use clawgate_shared::clock;
use clawgate_shared::content::Content;
use clawgate_shared::network::Network;
use clawgate_shared::origin::{BaseUrl, Origin};
use clawgate_shared::pricing::{Entry, Price, Source, Sources};
use clawgate_shared::proto::node::{self as wire, SealedSecret, resource::Body};
use clawgate_shared::seal::{SealError, Sealed, SealingKey, SecretBinding};
use http::HeaderValue;

use super::model::{Bot, BotState, Snapshot, Tenant, TokenEntry};
use crate::limits::{Allowance, Gate, Gates, Metric, Outage, QuotaRule, Slice, Slices};
use crate::routing::{Credential, Glob, Healths, Key, Names, Pool, Probe, Strategy, Turns};

/// Longest list of reasons that is sent back.
const MAX_REASONS: usize = 50;

/// What is needed besides the content.
pub struct Inputs<'a> {
    /// Opens the sealed secrets.
    pub sealing_key: &'a SealingKey,
    /// By key id.
    pub secrets: &'a HashMap<String, SealedSecret>,
    /// Round-robin counters that outlive snapshots.
    pub turns: &'a Turns,
    /// Where keys stand with their vendors, which outlives snapshots.
    pub healths: &'a Healths,
    /// What this node has of each quota, which outlives snapshots too.
    pub slices: &'a Slices,
    /// Rate and concurrency limits, which do so as well. Their limits change in
    /// place, once it is certain that the content is served.
    pub gates: &'a Gates,
}

/// Builds the read model.
///
/// # Errors
/// Every reason why the content is not served, at most 50.
pub fn compile(content: &Content, version: &wire::Version, inputs: &Inputs<'_>) -> Result<Snapshot, Vec<String>> {
    let mut work = Work {
        inputs,
        reasons: Vec::new(),
        tenants: HashMap::new(),
        keys: BTreeMap::new(),
        quotas: HashMap::new(),
        gates: Vec::new(),
        counted: tenants_that_count(content),
    };
    let max_config_age_secs = work.settings(content);
    work.tenants(content);
    work.quotas(content);
    let keys = work.keys(content);
    let mut snapshot = Snapshot { max_config_age_secs, keys, ..Snapshot::default() };
    for resource in content.iter() {
        if let Some(Body::Bot(bot)) = &resource.body {
            work.bot(&resource.id, bot, &mut snapshot);
        }
    }
    inputs.turns.forget_unused();
    inputs.healths.forget_unused();
    inputs.slices.forget_unused(clock::boot_micros());
    inputs.gates.forget_unused();
    if !work.reasons.is_empty() {
        work.reasons.truncate(MAX_REASONS);
        return Err(work.reasons);
    }
    let now = clock::boot_micros();
    work.gates.iter().for_each(|(gate, allowance)| inputs.gates.set(gate, *allowance, now));
    let hash = version.hash.get(..12).unwrap_or(&version.hash);
    let text = format!("{}-{}-{hash}", version.generation, version.revision);
    snapshot.version_header = HeaderValue::from_str(&text).ok();
    snapshot.version = text.into();
    Ok(snapshot)
}

/// (tenant, vendor) -> (project, key)
type KeysByPlace = BTreeMap<(String, String), Vec<(String, Arc<Key>)>>;

struct Work<'a> {
    inputs: &'a Inputs<'a>,
    reasons: Vec<String>,
    tenants: HashMap<String, Arc<Tenant>>,
    keys: KeysByPlace,
    /// (scope, what) -> rules
    quotas: HashMap<(String, String), Vec<Arc<QuotaRule>>>,
    /// What gates are to be set to.
    gates: Vec<(Arc<Gate>, Allowance)>,
    /// Tenants whose keys' requests are counted.
    counted: HashSet<String>,
}

impl Work<'_> {
    fn refuse(&mut self, reason: String) {
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason);
        }
    }

    /// The gate of what has limits.
    fn gate(&mut self, id: &str, allowance: Allowance) -> Option<Arc<Gate>> {
        if allowance.is_none() {
            return None;
        }
        let gate = self.inputs.gates.of(id);
        self.gates.push((gate.clone(), allowance));
        Some(gate)
    }

    fn settings(&mut self, content: &Content) -> u64 {
        let mut age = 0;
        for resource in content.iter() {
            if let Some(Body::Settings(settings)) = &resource.body {
                age = settings.max_config_age_secs;
                if !settings.poison.is_empty() {
                    self.refuse(format!("poisoned by the test hook: {}", settings.poison));
                }
            }
        }
        age
    }

    fn tenants(&mut self, content: &Content) {
        let mut vendors: HashMap<&str, HashMap<String, Arc<Vendor>>> = HashMap::new();
        for resource in content.iter() {
            if let Some(Body::Vendor(vendor)) = &resource.body {
                match custom_vendor(vendor) {
                    Ok(built) => {
                        let of_tenant = vendors.entry(&vendor.tenant_id).or_default();
                        of_tenant.insert(vendor.slug.clone(), Arc::new(built));
                    }
                    Err(reason) => self.refuse(format!("vendor {}: {reason}", resource.id)),
                }
            }
        }
        let prices = Arc::new(self.prices(content));
        for resource in content.iter() {
            if let Some(Body::Tenant(tenant)) = &resource.body {
                let own = vendors.remove(resource.id.as_str()).unwrap_or_default();
                let allowance = Allowance {
                    requests_per_minute: tenant.requests_per_minute.into(),
                    tokens_per_minute: tenant.tokens_per_minute,
                    max_concurrency: tenant.max_concurrency,
                };
                let tenant = Tenant {
                    id: resource.id.as_str().into(),
                    suspended: tenant.suspended,
                    prices: prices.clone(),
                    vendors: own,
                    gate: self.gate(&resource.id, allowance),
                };
                self.tenants.insert(resource.id.clone(), Arc::new(tenant));
            }
        }
        for tenant_id in vendors.into_keys().map(str::to_owned).collect::<Vec<_>>() {
            self.refuse(format!("a vendor belongs to unknown tenant {tenant_id}"));
        }
    }

    fn quotas(&mut self, content: &Content) {
        for resource in content.iter() {
            let Some(Body::Quota(quota)) = &resource.body else { continue };
            match quota_rule(quota, self.inputs.slices.of(&resource.id)) {
                Some(rule) => {
                    let place = (quota.scope.clone(), quota.scope_id.clone());
                    self.quotas.entry(place).or_default().push(Arc::new(rule));
                }
                None => self.refuse(format!("quota {}: a word is not one of the known ones", resource.id)),
            }
        }
    }

    /// Content is ordered by id, and ids by time: the order in which prices were
    /// set.
    fn prices(&mut self, content: &Content) -> Sources {
        let mut prices = Sources::default();
        for resource in content.iter() {
            let Some(Body::Price(price)) = &resource.body else { continue };
            let bands = serde_json::from_str(&price.bands).ok().and_then(|json| Price::from_json(&json).ok());
            let (Some(bands), Some(source)) = (bands, Source::parse(&price.source)) else {
                self.refuse(format!("price {}: cannot be read", resource.id));
                continue;
            };
            let entry = Entry {
                from: price.from_micros,
                until: if price.until_micros == 0 { i64::MAX } else { price.until_micros },
                reference: resource.id.as_str().into(),
                price: Arc::new(bands),
            };
            prices.add(source, &price.tenant_id, &price.vendor, &price.model, entry);
        }
        prices
    }

    fn quotas_of(&self, scopes: &[(&str, &str)]) -> Vec<Arc<QuotaRule>> {
        let found = scopes.iter().filter_map(|(scope, id)| self.quotas.get(&((*scope).to_owned(), (*id).to_owned())));
        found.flatten().cloned().collect()
    }

    fn keys(&mut self, content: &Content) -> Vec<Arc<Key>> {
        let mut all = Vec::new();
        for resource in content.iter() {
            let Some(Body::ProviderKey(key)) = &resource.body else { continue };
            if !key.enabled {
                continue;
            }
            match self.key(&resource.id, key) {
                Ok(built) => {
                    let built = Arc::new(built);
                    all.push(built.clone());
                    let place = self.keys.entry((key.tenant_id.clone(), key.vendor.clone())).or_default();
                    place.push((key.project_id.clone(), built));
                }
                Err(reason) => self.refuse(format!("provider key {}: {reason}", resource.id)),
            }
        }
        all
    }

    fn key(&mut self, id: &str, key: &wire::ProviderKey) -> Result<Key, String> {
        let tenant = self.tenants.get(&key.tenant_id).ok_or("unknown tenant")?;
        let vendor = tenant.vendor(&key.vendor).ok_or_else(|| format!("unknown vendor {:?}", key.vendor))?;
        let base_url = match key.base_url.as_str() {
            "" => None,
            text => Some(BaseUrl::parse(text).map_err(|e| format!("base_url {e}"))?),
        };
        let base =
            base_for_key(vendor, base_url.as_ref(), None).ok_or("neither the key nor its vendor has a base URL")?;
        let form = match key.auth.as_str() {
            "" => vendor.auth.clone(),
            text => AuthForm::parse(text).ok_or_else(|| format!("unknown auth form {text:?}"))?,
        };
        let credential = if form == AuthForm::None {
            Credential::None
        } else {
            let secret = self.open(id, key, &base.origin)?;
            Credential::new(&form, &secret).ok_or("the secret has bytes that no header can carry")?
        };
        let include_usage = match key.include_usage.as_str() {
            "" => vendor.include_usage,
            text => IncludeUsage::parse(text).ok_or_else(|| format!("unknown include_usage {text:?}"))?,
        };
        let mut tags = key.tags.clone();
        tags.sort_unstable();
        let probe = probe(vendor, base_url.as_ref(), &base);
        let gate = self.gate(id, Allowance { max_concurrency: key.max_concurrency, ..Allowance::default() });
        // Another secret, or another place that it is sent to, is another key.
        let stamp = format!("{id} {} {base} {}", key.secret_version, key.auth);
        let health = self.inputs.healths.of(&stamp, clock::boot_micros());
        let counted = self.counted.contains(&key.tenant_id).then(|| health.slots.clone());
        Ok(Key {
            id: id.into(),
            vendor: key.vendor.as_str().into(),
            secret_version: key.secret_version,
            id_header: HeaderValue::from_str(id).map_err(|_| "the id is not plain text")?,
            tags,
            base_url,
            base,
            credential,
            include_usage,
            quotas: self.quotas_of(&[("provider_key", id)]),
            slots: gate.as_ref().map(|gate| gate.slots.clone()).or(counted),
            gate,
            weight: key.weight,
            priority: key.priority,
            health,
            probe,
            organization: HeaderValue::from_str(&key.organization).ok().filter(|v| !v.is_empty()),
        })
    }

    fn open(&self, id: &str, key: &wire::ProviderKey, origin: &Origin) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        let sealed = self.inputs.secrets.get(id).ok_or("its secret did not come along")?;
        if sealed.secret_version != key.secret_version {
            return Err(format!("secret version {} came for {}", sealed.secret_version, key.secret_version));
        }
        let origin = origin.to_string();
        let binding = SecretBinding {
            tenant_id: &key.tenant_id,
            key_id: id,
            vendor: &key.vendor,
            origin: &origin,
            secret_version: key.secret_version,
        };
        let open = || -> Result<_, SealError> {
            let value = Sealed::from_parts(&sealed.nonce, &sealed.ciphertext)?;
            self.inputs.sealing_key.open(&value, &binding.aad())
        };
        open().map_err(|e| e.to_string())
    }

    fn bot(&mut self, id: &str, bot: &wire::Bot, snapshot: &mut Snapshot) {
        let Some(tenant) = self.tenants.get(&bot.tenant_id).cloned() else {
            return self.refuse(format!("bot {id}: unknown tenant {}", bot.tenant_id));
        };
        let state = match bot.state() {
            wire::BotState::Enabled => BotState::Enabled,
            wire::BotState::Disabled => BotState::Disabled,
            wire::BotState::Suspended => BotState::Suspended,
            wire::BotState::Unspecified => return self.refuse(format!("bot {id}: no state")),
        };
        let bot_id: Arc<str> = id.into();
        let allowance = Allowance {
            requests_per_minute: bot.requests_per_minute.into(),
            tokens_per_minute: bot.tokens_per_minute,
            max_concurrency: bot.max_concurrency,
        };
        let Some(pools) = self.pools(&bot_id, bot) else {
            return self.refuse(format!("bot {id}: unknown key strategy {:?}", bot.key_strategy));
        };
        let built = Arc::new(Bot {
            gate: self.gate(id, allowance),
            pools,
            quotas: self.quotas_of(&[("bot", id), ("project", &bot.project_id), ("tenant", &bot.tenant_id)]),
            default_max_tokens: Some(bot.default_max_tokens).filter(|tokens| *tokens > 0),
            id: bot_id,
            hostname: bot.hostname.as_str().into(),
            tenant,
            project_id: bot.project_id.as_str().into(),
            state,
            tags: bot.tags.clone(),
            allowed_vendors: bot.allowed_vendors.clone(),
            allowed_models: bot.allowed_models.iter().map(|glob| Glob::new(glob)).collect(),
            literal_models: bot.allowed_models.iter().filter(|glob| !glob.contains('*')).cloned().collect(),
            names: names(bot),
            account_resources: bot.permissions.iter().any(|p| p == "account_resources"),
            drain_on_disconnect: bot.on_disconnect == "drain",
            never_include_usage: bot.include_usage == "never",
            labels: bot.labels.iter().map(|l| (l.key.clone(), l.value.clone())).collect(),
        });
        snapshot.bots += 1;
        for token in &bot.tokens {
            let Ok(hash) = token.sha256.as_slice().try_into() else {
                self.refuse(format!("bot {id}: token {} has no SHA-256", token.id));
                continue;
            };
            let network = Some(token.network.as_str()).filter(|text| !text.is_empty()).map(str::parse::<Network>);
            let Ok(network) = network.transpose() else {
                self.refuse(format!("bot {id}: token {} has no network but {:?}", token.id, token.network));
                continue;
            };
            let entry = TokenEntry { bot: built.clone(), expires_at_micros: token.expires_at_micros, network };
            if snapshot.tokens.insert(hash, entry).is_some() {
                self.refuse(format!("bot {id}: token {} belongs to another bot too", token.id));
            }
        }
    }

    /// `None`: the bot's strategy is not a known word.
    fn pools(&self, bot_id: &Arc<str>, bot: &wire::Bot) -> Option<HashMap<Arc<str>, Pool>> {
        Strategy::parse(&bot.key_strategy, &[])?;
        let from = (bot.tenant_id.clone(), String::new());
        let of_tenant = self.keys.range(from..).take_while(|((tenant, _), _)| *tenant == bot.tenant_id);
        of_tenant
            .map(|((_, vendor), of_vendor)| {
                let matching = of_vendor.iter().filter(|(project, key)| {
                    (project.is_empty() || *project == bot.project_id) && key.carries(&bot.tags)
                });
                let vendor: Arc<str> = vendor.as_str().into();
                let keys: Vec<Arc<Key>> = matching.map(|(_, key)| key.clone()).collect();
                let pool = Pool {
                    strategy: Strategy::parse(&bot.key_strategy, &keys)?,
                    any_quotas: keys.iter().any(|key| !key.quotas.is_empty()),
                    keys,
                    any_configured: !of_vendor.is_empty(),
                    turn: self.inputs.turns.of(bot_id, &vendor),
                };
                Some((vendor, pool))
            })
            .collect()
    }
}

fn names(bot: &wire::Bot) -> Names {
    let aliases = bot.model_aliases.iter().map(|alias| (alias.from.clone(), alias.to.clone()));
    let chains = bot.fallbacks.iter().filter(|chain| !chain.to.is_empty());
    let fallbacks = chains.map(|chain| (chain.from.clone(), chain.to.clone()));
    Names::new(aliases.collect(), fallbacks.collect())
}

/// Tenants with a bot that goes by how much its keys are used.
fn tenants_that_count(content: &Content) -> HashSet<String> {
    let bots = content.iter().filter_map(|resource| match &resource.body {
        Some(Body::Bot(bot)) => Some(bot),
        _ => None,
    });
    bots.filter(|bot| bot.key_strategy == "least_used").map(|bot| bot.tenant_id.clone()).collect()
}

/// How the vendor is asked about a key; only at the origin its secret is for.
fn probe(vendor: &Vendor, own: Option<&BaseUrl>, base: &BaseUrl) -> Option<Probe> {
    let (url, query) = vendor.check_url(own).filter(|(url, _)| url.origin == base.origin)?;
    let target = if query.is_empty() { url.path } else { format!("{}?{query}", url.path) };
    Some(Probe { target, headers: vendor.default_headers.to_vec() })
}

/// A quota as told, with the slice that counts for it. `None`: a word in it is
/// not known.
#[must_use]
pub fn quota_rule(quota: &wire::Quota, slice: Arc<Slice>) -> Option<QuotaRule> {
    Some(QuotaRule {
        slice,
        scope: quota.scope.as_str().into(),
        window: quota.window.as_str().into(),
        metric: Metric::parse(&quota.metric)?,
        limit: quota.limit,
        models: Some(quota.model.as_str()).filter(|model| !model.is_empty()).map(Glob::new),
        strict: one_of(&quota.mode, "strict", "estimate")?,
        cut: one_of(&quota.on_exceed, "cut", "refuse")?,
        outage: Outage::parse(&quota.on_outage)?,
    })
}

fn one_of(text: &str, yes: &str, no: &str) -> Option<bool> {
    if text == yes { Some(true) } else { (text == no).then_some(false) }
}

fn custom_vendor(vendor: &wire::Vendor) -> Result<Vendor, String> {
    Vendor::custom(CustomVendor {
        slug: &vendor.slug,
        title: &vendor.title,
        base_url: &vendor.base_url,
        auth: &vendor.auth,
        dialect: &vendor.dialect,
        include_usage: &vendor.include_usage,
        routes: &vendor.routes,
    })
    .map_err(|e| e.to_string())
}
