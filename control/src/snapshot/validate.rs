//! Whether a content may be published: the same rules that a node compiles by,
//! checked before any node sees it. The same function serves the dry run of a
//! write and the publisher.

use std::collections::{HashMap, HashSet};

use clawgate_shared::catalogue::{self, AuthForm, CustomVendor, IncludeUsage, Vendor};
use clawgate_shared::content::Content;
use clawgate_shared::origin::BaseUrl;
use clawgate_shared::proto::node::{self as wire, resource::Body};

/// Most bots in one content.
pub const MAX_BOTS: usize = 1_000_000;
/// Most provider keys in one content.
pub const MAX_KEYS: usize = 100_000;
/// Longest text anywhere, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Most entries in any list of one resource.
pub const MAX_LIST: usize = 1024;
/// Most tags of one bot or key.
pub const MAX_TAGS: usize = 64;
/// Models in one chain of fallbacks.
pub const MAX_CHAIN: usize = 8;
/// How many problems are reported at most.
const MAX_PROBLEMS: usize = 50;

const STRATEGIES: [&str; 5] = ["round_robin", "weighted", "priority", "least_used", "sticky"];

/// One reason why a content is not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Kind and id of the resource.
    pub resource: String,
    /// Which rule it breaks; never holds a secret.
    pub rule: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.resource, self.rule)
    }
}

/// Every problem, at most 50; empty when the content may be published.
#[must_use]
pub fn validate(content: &Content) -> Vec<Problem> {
    let mut check = Check::default();
    check.index(content);
    for resource in content.iter() {
        check.one(resource);
    }
    if check.settings != 1 {
        check.refuse("settings", &format!("there are {} of them, wanted one", check.settings));
    }
    if check.bots > MAX_BOTS || check.keys > MAX_KEYS {
        check.refuse("content", &format!("holds more than {MAX_BOTS} bots or {MAX_KEYS} provider keys"));
    }
    check.problems
}

#[derive(Default)]
struct Check<'a> {
    problems: Vec<Problem>,
    /// Tenants with their own vendors by slug; `None`: a vendor that is broken.
    tenants: HashMap<&'a str, HashMap<&'a str, Option<Vendor>>>,
    /// Projects with their tenant.
    projects: HashMap<&'a str, &'a str>,
    /// (kind, tenant, name) that must be unique.
    names: HashSet<(&'static str, &'a str, &'a str)>,
    tokens: HashSet<&'a [u8]>,
    settings: usize,
    bots: usize,
    keys: usize,
}

impl<'a> Check<'a> {
    fn refuse(&mut self, resource: &str, rule: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { resource: resource.to_owned(), rule: rule.to_owned() });
        }
    }

    /// First pass: what others refer to.
    fn index(&mut self, content: &'a Content) {
        for resource in content.iter() {
            match &resource.body {
                Some(Body::Tenant(_)) => {
                    self.tenants.insert(&resource.id, HashMap::new());
                }
                Some(Body::Project(project)) => {
                    self.projects.insert(&resource.id, &project.tenant_id);
                }
                _ => {}
            }
        }
        for resource in content.iter() {
            let Some(Body::Vendor(vendor)) = &resource.body else { continue };
            let name = format!("vendor {}", resource.id);
            let built = custom(vendor).inspect_err(|rule| self.refuse(&name, rule)).ok();
            let known = match self.tenants.get_mut(vendor.tenant_id.as_str()) {
                Some(vendors) => vendors.insert(&vendor.slug, built).is_none(),
                None => {
                    self.refuse(&name, "its tenant does not exist");
                    continue;
                }
            };
            if !known {
                self.refuse(&name, "its slug is taken");
            }
        }
    }

    /// Second pass: each resource by itself and what it refers to.
    fn one(&mut self, resource: &'a wire::Resource) {
        match &resource.body {
            Some(Body::Settings(_)) => self.settings += 1,
            Some(Body::Tenant(tenant)) => {
                let name = format!("tenant {}", resource.id);
                self.texts(&name, [&resource.id, &tenant.slug, &tenant.time_zone]);
                self.unique(&name, ("tenant", "", &tenant.slug));
            }
            Some(Body::Project(project)) => {
                let name = format!("project {}", resource.id);
                self.texts(&name, [&resource.id, &project.slug]);
                self.tenant(&name, &project.tenant_id);
                self.unique(&name, ("project", &project.tenant_id, &project.slug));
            }
            Some(Body::Vendor(vendor)) => {
                let name = format!("vendor {}", resource.id);
                self.texts(&name, [&resource.id, &vendor.title]);
            }
            Some(Body::Bot(bot)) => self.bot(&resource.id, bot),
            Some(Body::ProviderKey(key)) => self.key(&resource.id, key),
            Some(Body::Quota(quota)) => self.quota(&resource.id, quota),
            Some(Body::Price(price)) => {
                let name = format!("price {}", resource.id);
                self.texts(&name, [&resource.id, &price.vendor, &price.model]);
            }
            None => self.refuse(&format!("resource {}", resource.id), "has no body"),
        }
    }

    fn bot(&mut self, id: &'a str, bot: &'a wire::Bot) {
        self.bots += 1;
        let name = format!("bot {id}");
        self.texts(&name, [id, &bot.hostname]);
        self.tenant(&name, &bot.tenant_id);
        self.project(&name, &bot.tenant_id, &bot.project_id);
        self.unique(&name, ("bot", &bot.tenant_id, &bot.hostname));
        self.tags(&name, &bot.tags);
        let lists = [&bot.allowed_vendors, &bot.allowed_models, &bot.permissions];
        for list in lists {
            self.list(&name, list);
        }
        let counted = bot.model_aliases.len().max(bot.fallbacks.len()).max(bot.labels.len()).max(bot.tokens.len());
        if counted > MAX_LIST {
            self.refuse(&name, "has a list that is too long");
        }
        if bot.fallbacks.iter().any(|chain| chain.to.len() > MAX_CHAIN) {
            self.refuse(&name, "has a chain of fallbacks that is too long");
        }
        if bot.state() == wire::BotState::Unspecified {
            self.refuse(&name, "has no state");
        }
        let words = STRATEGIES.contains(&bot.key_strategy.as_str())
            && ["cancel", "drain"].contains(&bot.on_disconnect.as_str())
            && ["auto", "never"].contains(&bot.include_usage.as_str());
        if !words {
            self.refuse(&name, "key_strategy, on_disconnect or include_usage is not one of the known words");
        }
        for token in &bot.tokens {
            if token.sha256.len() != 32 {
                self.refuse(&name, &format!("token {} has no SHA-256", token.id));
            } else if !self.tokens.insert(&token.sha256) {
                self.refuse(&name, &format!("token {} belongs to two bots", token.id));
            }
        }
    }

    fn quota(&mut self, id: &'a str, quota: &'a wire::Quota) {
        let name = format!("quota {id}");
        self.texts(&name, [id, &quota.scope_id, &quota.model]);
        self.tenant(&name, &quota.tenant_id);
        let words: [(&str, &[&str]); 6] = [
            (&quota.scope, &["bot", "project", "tenant", "provider_key"]),
            (&quota.metric, &["total_tokens", "input_tokens", "output_tokens", "requests", "cost_micros"]),
            (&quota.window, &["minute", "hour", "day", "week", "month", "total"]),
            (&quota.mode, &["strict", "estimate"]),
            (&quota.on_exceed, &["refuse", "cut"]),
            (&quota.on_outage, &["deny", "allowance", "allow"]),
        ];
        if let Some((word, _)) = words.into_iter().find(|(word, known)| !known.contains(word)) {
            self.refuse(&name, &format!("{word:?} is not one of the known words"));
        }
    }

    fn key(&mut self, id: &'a str, key: &'a wire::ProviderKey) {
        self.keys += 1;
        let name = format!("provider_key {id}");
        self.texts(&name, [id, &key.vendor, &key.base_url, &key.api_version, &key.organization, &key.region]);
        self.tenant(&name, &key.tenant_id);
        self.project(&name, &key.tenant_id, &key.project_id);
        self.tags(&name, &key.tags);
        if !key.auth.is_empty() && AuthForm::parse(&key.auth).is_none() {
            self.refuse(&name, "auth is not one of the known forms");
        }
        if !key.include_usage.is_empty() && IncludeUsage::parse(&key.include_usage).is_none() {
            self.refuse(&name, "include_usage is not one of the known words");
        }
        if let Err(rule) = self.origin(key) {
            self.refuse(&name, &rule);
        }
    }

    /// A key must lead to an origin: its own, or its vendor's.
    fn origin(&self, key: &wire::ProviderKey) -> Result<(), String> {
        let own = self.tenants.get(key.tenant_id.as_str()).and_then(|vendors| vendors.get(key.vendor.as_str()));
        let vendor = match own {
            Some(None) => return Ok(()), // the vendor itself is refused already
            Some(Some(vendor)) => vendor,
            None => catalogue::find(&key.vendor).ok_or("its vendor does not exist")?,
        };
        let base_url = match key.base_url.as_str() {
            "" => vendor.base_url.as_deref().ok_or("needs a base_url: its vendor has no default")?,
            text => text,
        };
        BaseUrl::parse(base_url).map(|_| ()).map_err(|error| format!("base_url {error}"))
    }

    fn tenant(&mut self, name: &str, id: &str) {
        if !self.tenants.contains_key(id) {
            self.refuse(name, "its tenant does not exist");
        }
    }

    fn project(&mut self, name: &str, tenant: &str, id: &str) {
        if !id.is_empty() && self.projects.get(id) != Some(&tenant) {
            self.refuse(name, "its project does not exist in its tenant");
        }
    }

    fn unique(&mut self, name: &str, key: (&'static str, &'a str, &'a str)) {
        if !self.names.insert(key) {
            self.refuse(name, "its name is taken");
        }
    }

    fn texts<const N: usize>(&mut self, name: &str, texts: [&str; N]) {
        if texts.iter().any(|text| text.len() > MAX_TEXT) {
            self.refuse(name, "has a text that is too long");
        }
        if texts.first().is_some_and(|id| id.is_empty()) {
            self.refuse(name, "has no id");
        }
    }

    fn tags(&mut self, name: &str, tags: &[String]) {
        if tags.len() > MAX_TAGS {
            self.refuse(name, "has too many tags");
        }
        self.list(name, tags);
    }

    fn list(&mut self, name: &str, list: &[String]) {
        if list.len() > MAX_LIST || list.iter().any(|text| text.len() > MAX_TEXT) {
            self.refuse(name, "has a list or a text in one that is too long");
        }
    }
}

fn custom(vendor: &wire::Vendor) -> Result<Vendor, String> {
    Vendor::custom(CustomVendor {
        slug: &vendor.slug,
        title: &vendor.title,
        base_url: &vendor.base_url,
        auth: &vendor.auth,
        dialect: &vendor.dialect,
        include_usage: &vendor.include_usage,
        routes: &vendor.routes,
    })
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture;

    fn rules(content: &Content) -> Vec<String> {
        validate(content).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_content_has_no_problem() {
        assert_eq!(rules(&fixture::content()), Vec::<String>::new());
    }

    #[test]
    fn each_broken_rule_is_named() {
        type Break = fn(&mut fixture::Parts);
        let broken: [(&str, Break); 14] = [
            ("settings: there are 0", |p| p.settings = None),
            ("bot bot_1: its tenant", |p| p.bot.tenant_id = "ten_x".into()),
            ("bot bot_1: its project", |p| p.bot.project_id = "prj_other".into()),
            ("bot bot_1: has no state", |p| p.bot.state = 0),
            ("bot bot_1: key_strategy", |p| p.bot.key_strategy = "luck".into()),
            ("bot bot_1: token tok_1 has no SHA-256", |p| p.bot.tokens[0].sha256 = vec![1]),
            ("bot bot_1: token tok_1 belongs to two", |p| p.bot.tokens.push(p.bot.tokens[0].clone())),
            ("bot bot_1: has too many tags", |p| p.bot.tags = vec!["t".into(); MAX_TAGS + 1]),
            ("bot bot_1: has a text", |p| p.bot.hostname = "h".repeat(MAX_TEXT + 1)),
            ("provider_key key_1: its vendor", |p| p.key.vendor = "nobody".into()),
            ("provider_key key_1: needs a base_url", |p| {
                p.key.vendor = "custom".into();
                p.key.base_url = String::new();
            }),
            ("provider_key key_1: base_url", |p| p.key.base_url = "https://u@h/".into()),
            ("provider_key key_1: auth", |p| p.key.auth = "magic".into()),
            ("vendor ven_1: slug", |p| p.vendor.slug = "openai".into()),
        ];
        for (wanted, change) in broken {
            let mut parts = fixture::parts();
            change(&mut parts);
            let found = rules(&parts.content());
            assert!(found.iter().any(|rule| rule.starts_with(wanted)), "{wanted}: {found:?}");
        }
    }

    #[test]
    fn names_are_unique_within_a_tenant() {
        let mut content = fixture::content();
        let mut twin = fixture::parts().bot;
        twin.tokens.clear();
        content.upsert(wire::Resource { id: "bot_2".into(), body: Some(Body::Bot(twin)) }).expect("known kind");
        assert_eq!(rules(&content), ["bot bot_2: its name is taken"]);
    }
}
