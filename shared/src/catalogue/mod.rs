//! The vendor catalogue: what a vendor is, as data.
//!
//! Invariant: adding an OpenAI-compatible vendor is one entry in
//! [`builtin`] and no code. A tenant's own vendor is the same [`Vendor`] value,
//! built from a row instead of a constant.
//! Deliberately absent: keys, health, anything that changes while running.

mod account;
mod builtin;
mod check;
mod custom;
mod key_errors;
mod models;
mod resolve;
mod routes;
mod unified;

use std::borrow::Cow;

use crate::dialect::{Dialect, Protocol};

pub use account::{Account, MAX_ACCOUNT_ID, MAX_ACCOUNT_IDS, Touch};
pub use builtin::{all, find};
pub use custom::{CustomVendor, CustomVendorError, MAX_CUSTOM_ROUTES, RESERVED_SLUGS, dialect_routes, slug_is_free};
pub use key_errors::KeyError;
pub use models::{ModelLimits, model_limits};
pub use resolve::{ResolveError, Resolved, base_for_key, resolve};
pub use unified::UnifiedRoute;

/// Static for built-in vendors, owned for a tenant's own.
pub type Text = Cow<'static, str>;

/// One vendor.
#[derive(Clone, Debug)]
pub struct Vendor {
    /// The path segment: `/v1/{slug}/…`.
    pub slug: Text,
    /// For people.
    pub title: Text,
    /// Default base URL as the vendor documents it, version included
    /// (`https://api.openai.com/v1`). `None`: every key must carry its own.
    pub base_url: Option<Text>,
    /// Further roots; longest prefix wins. See [`Root`].
    pub roots: Cow<'static, [Root]>,
    /// How the provider key is presented.
    pub auth: AuthForm,
    /// Whether `stream_options.include_usage` may be added by us.
    pub include_usage: IncludeUsage,
    /// Error shape of refusals on this vendor's routes.
    pub dialect: Dialect,
    /// What may be called.
    pub routes: Cow<'static, [Route]>,
    /// Where a person gets a key.
    pub key_page: Text,
    /// Headers the vendor demands and a client may have left out
    /// (`anthropic-version`): added when absent.
    pub default_headers: Cow<'static, [(&'static str, &'static str)]>,
    /// What the vendor's own codes of errors say of the key, besides the words
    /// that many vendors have. See [`Vendor::key_error`].
    pub key_errors: Cow<'static, [(&'static str, KeyError)]>,
    /// It answers errors with status 200, alone in a small JSON body.
    pub hides_errors: bool,
}

/// A path prefix below `/v1/{vendor}/` and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Without slashes at the ends (`v1beta`, `upload/v1beta`).
    pub prefix: Text,
    /// What replaces it.
    pub target: RootTarget,
}

/// Where a root leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootTarget {
    /// The base URL: `v1/chat/completions` and `chat/completions` are the same.
    Base,
    /// This absolute path on the base URL's origin, after the base URL's own
    /// path has lost the vendor's documented suffix (a key whose base URL is
    /// `http://host/prefix/v1` keeps `/prefix`).
    Path(Text),
}

/// How a credential is presented to a vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthForm {
    /// `authorization: Bearer …`
    Bearer,
    /// `x-api-key: …`
    XApiKey,
    /// `x-goog-api-key: …`
    XGoogApiKey,
    /// `api-key: …`
    ApiKey,
    /// `?name=…`
    Query(Text),
    /// The vendor wants none (a local Ollama).
    None,
}

impl AuthForm {
    /// `bearer | x-api-key | x-goog-api-key | api-key | query:NAME | none`
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "bearer" => Self::Bearer,
            "x-api-key" => Self::XApiKey,
            "x-goog-api-key" => Self::XGoogApiKey,
            "api-key" => Self::ApiKey,
            "none" => Self::None,
            other => {
                let name = other.strip_prefix("query:")?;
                let plain = !name.is_empty()
                    && name.len() <= 64
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if !plain {
                    return None;
                }
                Self::Query(Text::Owned(name.to_owned()))
            }
        })
    }

    /// The inverse of [`Self::parse`].
    #[must_use]
    pub fn name(&self) -> Text {
        match self {
            Self::Bearer => "bearer".into(),
            Self::XApiKey => "x-api-key".into(),
            Self::XGoogApiKey => "x-goog-api-key".into(),
            Self::ApiKey => "api-key".into(),
            Self::Query(name) => format!("query:{name}").into(),
            Self::None => "none".into(),
        }
    }
}

/// What we do about `stream_options.include_usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeUsage {
    /// Ask for usage when the client did not, and take the extra frame out.
    Inject,
    /// The vendor rejects the field; it sends usage unasked or not at all.
    Never,
    /// Leave the client's choice alone.
    Passthrough,
}

impl IncludeUsage {
    /// `inject | never | passthrough`
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "inject" => Some(Self::Inject),
            "never" => Some(Self::Never),
            "passthrough" => Some(Self::Passthrough),
            _ => None,
        }
    }

    /// The inverse of [`Self::parse`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Never => "never",
            Self::Passthrough => "passthrough",
        }
    }
}

/// One callable route below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Segments separated by `/`. `*` is one whole segment, `{m}` one that names
    /// the model, `{m}:verb` one that does and ends in `:verb`, `**` the rest (at
    /// least one segment).
    pub pattern: Text,
    /// Allowed methods, upper case; empty: any.
    pub methods: Cow<'static, [&'static str]>,
    /// How usage is read.
    pub protocol: Protocol,
    /// What the route does to the vendor account.
    pub class: RouteClass,
}

/// Whether and for whom a route may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteClass {
    /// For every bot.
    Inference,
    /// Files, batches, stored responses, caches, fine-tunes: only with the bot
    /// permission `account_resources`, and only what the bot itself made.
    AccountResource(Touch),
    /// Mints credentials or administers the account: never forwarded.
    Forbidden,
}
