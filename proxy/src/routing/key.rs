//! A provider key, ready to be presented.

use std::sync::Arc;

use clawgate_shared::catalogue::{AuthForm, IncludeUsage};
use clawgate_shared::origin::BaseUrl;
use http::HeaderValue;
use http::header::HeaderName;
use zeroize::Zeroizing;

use super::health::Health;
use crate::limits::{Gate, QuotaRule, Slots};

/// How the key travels. Built once per snapshot; a clone of the header value
/// is a reference count, and the bytes are wiped with the last clone.
#[derive(Clone)]
pub enum Credential {
    /// One header; the value is marked sensitive.
    Header(HeaderName, HeaderValue),
    /// One query parameter: `name=` and the percent-encoded secret.
    Query(Arc<Zeroizing<String>>),
    /// The vendor wants none.
    None,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header(..) => "Credential::Header(…)",
            Self::Query(_) => "Credential::Query(…)",
            Self::None => "Credential::None",
        })
    }
}

impl Credential {
    /// Puts `secret` into the vendor's form. `None` when the secret has bytes
    /// that no header can carry.
    #[must_use]
    pub fn new(form: &AuthForm, secret: &[u8]) -> Option<Self> {
        let header = |name: HeaderName, prefix: &[u8]| {
            let bytes = Zeroizing::new([prefix, secret].concat());
            let mut value = HeaderValue::from_maybe_shared(bytes::Bytes::from_owner(bytes)).ok()?;
            value.set_sensitive(true);
            Some(Self::Header(name, value))
        };
        match form {
            AuthForm::Bearer => header(http::header::AUTHORIZATION, b"Bearer "),
            AuthForm::XApiKey => header(HeaderName::from_static("x-api-key"), b""),
            AuthForm::XGoogApiKey => header(HeaderName::from_static("x-goog-api-key"), b""),
            AuthForm::ApiKey => header(HeaderName::from_static("api-key"), b""),
            AuthForm::Query(name) => {
                let mut text = Zeroizing::new(format!("{name}="));
                for byte in secret {
                    if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                        text.push(char::from(*byte));
                    } else {
                        text.push_str(&format!("%{byte:02X}"));
                    }
                }
                Some(Self::Query(Arc::new(text)))
            }
            AuthForm::None => Some(Self::None),
        }
    }
}

/// What proves the key to its vendor: a cheap `GET` at the origin of its base.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Path and query, without the credential.
    pub target: String,
    /// What the vendor demands beside it.
    pub headers: Vec<(&'static str, &'static str)>,
}

/// One provider key of a snapshot.
#[derive(Debug)]
pub struct Key {
    /// `key_…`
    pub id: Arc<str>,
    /// Slug.
    pub vendor: Arc<str>,
    /// Goes up with each new secret.
    pub secret_version: u64,
    /// The id as the `x-clawgate-key` header.
    pub id_header: HeaderValue,
    /// Sorted.
    pub tags: Vec<String>,
    /// The key's own base URL, when it has one.
    pub base_url: Option<BaseUrl>,
    /// Where requests go unless a root of the vendor says otherwise: the key's
    /// own base URL, else the vendor's.
    pub base: BaseUrl,
    /// What is presented.
    pub credential: Credential,
    /// Key setting, else the vendor's.
    pub include_usage: IncludeUsage,
    /// Quotas of this key.
    pub quotas: Vec<Arc<QuotaRule>>,
    /// How many requests it may have at one time, if that is limited.
    pub gate: Option<Arc<Gate>>,
    /// Its requests, when they are limited or somebody goes by their number.
    pub slots: Option<Arc<Slots>>,
    /// Share under `weighted`.
    pub weight: u32,
    /// Higher goes first under `priority`.
    pub priority: i32,
    /// Where it stands with its vendor.
    pub health: Arc<Health>,
    /// How to ask about it; `None`: the vendor has no route that would tell.
    pub probe: Option<Probe>,
    /// `openai-organization`-like header to add, when configured.
    pub organization: Option<HeaderValue>,
}

impl Key {
    /// Whether this key carries all of `required` (sorted or not).
    #[must_use]
    pub fn carries(&self, required: &[String]) -> bool {
        required.iter().all(|tag| self.tags.binary_search(tag).is_ok())
    }
}

#[cfg(test)]
impl Key {
    /// A key of vendor `openai` for tests.
    #[must_use]
    pub fn sample(id: &str, tags: &[&str]) -> Self {
        Self {
            id: id.into(),
            vendor: "openai".into(),
            secret_version: 1,
            id_header: HeaderValue::from_str(id).expect("ascii"),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            base_url: None,
            base: BaseUrl::parse("https://vendor.example/v1").expect("plain"),
            credential: Credential::None,
            include_usage: IncludeUsage::Inject,
            quotas: Vec::new(),
            gate: None,
            slots: None,
            weight: 1,
            priority: 0,
            health: super::health::Healths::default().of(id, 0),
            probe: None,
            organization: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_take_the_vendors_form_and_never_print() {
        let Some(Credential::Header(name, value)) = Credential::new(&AuthForm::Bearer, b"sk-1") else {
            panic!("a header");
        };
        assert_eq!((name.as_str(), value.as_bytes()), ("authorization", b"Bearer sk-1".as_slice()));
        assert!(value.is_sensitive());
        let query = Credential::new(&AuthForm::Query("key".into()), b"a/b+c").expect("a query");
        assert!(!format!("{query:?}").contains("a/b"));
        let Credential::Query(text) = query else { panic!("a query") };
        assert_eq!(text.as_str(), "key=a%2Fb%2Bc");
        assert!(Credential::new(&AuthForm::XApiKey, b"line\nbreak").is_none());
    }
}
