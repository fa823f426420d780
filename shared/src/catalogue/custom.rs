//! A tenant's own vendor, from the fields of its row.

use std::borrow::Cow;

use super::routes::{self, ANTHROPIC, GEMINI, OPENAI};
use super::{AuthForm, IncludeUsage, Root, RootTarget, Route, Text, Vendor, find};
use crate::dialect::Dialect;
use crate::origin::{BaseUrl, BaseUrlError};

/// First path segments below `/v1` that are ours; no vendor may take them.
pub const RESERVED_SLUGS: &[&str] = &[
    "api",
    "audio",
    "batches",
    "catalog",
    "chat",
    "completions",
    "embeddings",
    "files",
    "health",
    "images",
    "key",
    "me",
    "messages",
    "models",
    "moderations",
    "native",
    "pool",
    "realtime",
    "rerank",
    "responses",
    "usage",
    "v1",
];

/// How many routes a tenant's vendor may list.
pub const MAX_CUSTOM_ROUTES: usize = 64;

/// The fields of a tenant's own vendor.
#[derive(Clone, Copy, Debug)]
pub struct CustomVendor<'a> {
    /// `/v1/{slug}/…`; see [`slug_is_free`].
    pub slug: &'a str,
    /// For people.
    pub title: &'a str,
    /// Where it is.
    pub base_url: &'a str,
    /// As [`AuthForm::parse`] reads it.
    pub auth: &'a str,
    /// As [`Dialect::parse`] reads it.
    pub dialect: &'a str,
    /// As [`IncludeUsage::parse`] reads it; empty: passthrough.
    pub include_usage: &'a str,
    /// Patterns below the base URL; empty: those of the dialect.
    pub routes: &'a [String],
}

/// Why a tenant's vendor is refused; names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomVendorError {
    /// Not `[a-z0-9-]{1,40}`, reserved, or a built-in vendor's.
    #[error("slug must be 1-40 of a-z, 0-9 and -, and not a reserved or built-in name")]
    Slug,
    /// See [`BaseUrlError`].
    #[error("base_url {0}")]
    BaseUrl(BaseUrlError),
    /// Not an auth form.
    #[error("auth must be bearer, x-api-key, x-goog-api-key, api-key, query:NAME or none")]
    Auth,
    /// Not a dialect.
    #[error("dialect must be openai, anthropic or gemini")]
    Dialect,
    /// Not a policy.
    #[error("include_usage must be inject, never or passthrough")]
    IncludeUsage,
    /// Too many, or not a plain relative path.
    #[error("routes must be at most 64 relative paths without dot segments")]
    Routes,
}

/// Whether a tenant may name a vendor so.
#[must_use]
pub fn slug_is_free(slug: &str) -> bool {
    let plain = (1..=40).contains(&slug.len())
        && !slug.starts_with('-')
        && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain && !RESERVED_SLUGS.contains(&slug) && find(slug).is_none()
}

/// The route table of a dialect.
#[must_use]
pub fn dialect_routes(dialect: Dialect) -> &'static [Route] {
    match dialect {
        Dialect::OpenAi => OPENAI,
        Dialect::Anthropic => ANTHROPIC,
        Dialect::Gemini => GEMINI,
    }
}

impl Vendor {
    /// A tenant's own vendor as a catalogue entry.
    ///
    /// # Errors
    /// See [`CustomVendorError`].
    pub fn custom(fields: CustomVendor<'_>) -> Result<Self, CustomVendorError> {
        use CustomVendorError as E;
        if !slug_is_free(fields.slug) {
            return Err(E::Slug);
        }
        BaseUrl::parse(fields.base_url).map_err(E::BaseUrl)?;
        let auth = AuthForm::parse(fields.auth).ok_or(E::Auth)?;
        let dialect = Dialect::parse(fields.dialect).ok_or(E::Dialect)?;
        let include_usage = match fields.include_usage {
            "" => IncludeUsage::Passthrough,
            text => IncludeUsage::parse(text).ok_or(E::IncludeUsage)?,
        };
        let routes = if fields.routes.is_empty() {
            Cow::Borrowed(dialect_routes(dialect))
        } else {
            Cow::Owned(listed(fields.routes)?)
        };
        let version = if dialect == Dialect::Gemini { "v1beta" } else { "v1" };
        // A listed path means what it says; only the dialect's own table has
        // the version as an alias of the base.
        let roots = if fields.routes.is_empty() {
            vec![Root { prefix: Text::Borrowed(version), target: RootTarget::Base }]
        } else {
            Vec::new()
        };
        let default_headers: &[_] =
            if dialect == Dialect::Anthropic { &[("anthropic-version", "2023-06-01")] } else { &[] };
        Ok(Self {
            slug: Text::Owned(fields.slug.to_owned()),
            title: Text::Owned(fields.title.to_owned()),
            base_url: Some(Text::Owned(fields.base_url.to_owned())),
            roots: Cow::Owned(roots),
            auth,
            include_usage,
            dialect,
            routes,
            key_page: Text::Borrowed(""),
            default_headers: Cow::Borrowed(default_headers),
            key_errors: Cow::Borrowed(&[]),
            hides_errors: false,
        })
    }
}

fn listed(paths: &[String]) -> Result<Vec<Route>, CustomVendorError> {
    if paths.len() > MAX_CUSTOM_ROUTES {
        return Err(CustomVendorError::Routes);
    }
    let forbidden = OPENAI.iter().chain(GEMINI).filter(|route| route.class == super::RouteClass::Forbidden);
    let mut routes: Vec<Route> = forbidden.cloned().collect();
    for path in paths {
        let path = path.trim_matches('/');
        let plain = !path.is_empty()
            && path.len() <= 256
            && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'%' | b'?' | b'#'))
            && path.split('/').all(|segment| !segment.is_empty() && segment != "." && segment != "..");
        if !plain {
            return Err(CustomVendorError::Routes);
        }
        routes.push(routes::custom(path));
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: CustomVendor<'_> = CustomVendor {
        slug: "inhouse",
        title: "In-house",
        base_url: "http://10.0.0.5:8000/v1",
        auth: "bearer",
        dialect: "openai",
        include_usage: "",
        routes: &[],
    };

    #[test]
    fn fields_are_checked_one_by_one() {
        use CustomVendorError as E;
        assert!(Vendor::custom(FIELDS).is_ok());
        for slug in ["", "-x", "OpenAI", "openai", "models", "a/b", "constructor_"] {
            assert_eq!(Vendor::custom(CustomVendor { slug, ..FIELDS }).err(), Some(E::Slug), "{slug}");
        }
        let bad = |fields| Vendor::custom(fields).err();
        assert_eq!(bad(CustomVendor { auth: "basic", ..FIELDS }), Some(E::Auth));
        assert_eq!(bad(CustomVendor { dialect: "soap", ..FIELDS }), Some(E::Dialect));
        assert_eq!(bad(CustomVendor { include_usage: "maybe", ..FIELDS }), Some(E::IncludeUsage));
        assert_eq!(bad(CustomVendor { base_url: "ftp://x", ..FIELDS }), Some(E::BaseUrl(BaseUrlError::Scheme)));
        assert_eq!(bad(CustomVendor { routes: &["a/../b".to_owned()], ..FIELDS }), Some(E::Routes));
    }

    #[test]
    fn listed_routes_replace_the_table_but_not_the_prohibitions() {
        let routes = ["/generate".to_owned(), "**".to_owned()];
        let vendor = Vendor::custom(CustomVendor { routes: &routes, ..FIELDS }).expect("valid");
        assert!(super::super::resolve(&vendor, "POST", "generate").is_ok());
        assert!(super::super::resolve(&vendor, "POST", "organization/admin_api_keys").is_err());
    }
}
