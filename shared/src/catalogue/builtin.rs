//! The built-in vendors.
//!
//! Each is one entry of data in a file of its neighbourhood. Facts (base URLs,
//! credential forms, who rejects `stream_options`) come from the vendors'
//! documentation and recordings of their answers.

mod china;
mod clouds;
mod global;

use std::borrow::Cow;
use std::sync::LazyLock;

use super::{AuthForm, IncludeUsage, Root, RootTarget, Route, Text, Vendor};
use crate::dialect::Dialect;

static ALL: LazyLock<Vec<Vendor>> = LazyLock::new(|| {
    let mut vendors = global::vendors();
    vendors.extend(china::vendors());
    vendors.extend(clouds::vendors());
    vendors
});

/// Every built-in vendor.
#[must_use]
pub fn all() -> &'static [Vendor] {
    &ALL
}

/// The built-in vendor of that slug.
#[must_use]
pub fn find(slug: &str) -> Option<&'static Vendor> {
    ALL.iter().find(|vendor| vendor.slug == slug)
}

/// An OpenAI-compatible vendor at `base`; the rest is set where it differs.
fn openai_like(slug: &'static str, title: &'static str, base: &'static str, key_page: &'static str) -> Vendor {
    Vendor {
        slug: Text::Borrowed(slug),
        title: Text::Borrowed(title),
        base_url: if base.is_empty() { None } else { Some(Text::Borrowed(base)) },
        roots: Cow::Owned(vec![to_base("v1")]),
        auth: AuthForm::Bearer,
        include_usage: IncludeUsage::Inject,
        dialect: Dialect::OpenAi,
        routes: Cow::Borrowed(super::routes::OPENAI),
        key_page: Text::Borrowed(key_page),
        default_headers: Cow::Borrowed(&[]),
        key_errors: Cow::Borrowed(&[]),
        hides_errors: false,
    }
}

/// A prefix that stands for the base URL.
const fn to_base(prefix: &'static str) -> Root {
    Root { prefix: Cow::Borrowed(prefix), target: RootTarget::Base }
}

/// A prefix with a path of its own on the base URL's origin.
const fn to_path(prefix: &'static str, path: &'static str) -> Root {
    Root { prefix: Cow::Borrowed(prefix), target: RootTarget::Path(Cow::Borrowed(path)) }
}

fn roots(list: &[Root]) -> Cow<'static, [Root]> {
    Cow::Owned(list.to_vec())
}

fn routes(tables: &[&[Route]]) -> Cow<'static, [Route]> {
    Cow::Owned(tables.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::BaseUrl;

    #[test]
    fn the_catalogue_is_whole_and_sound() {
        let wanted = "openai anthropic google deepseek groq azure-openai mistral openrouter together fireworks \
            perplexity cohere zhipu moonshot baichuan dashscope stepfun doubao minimax yi hunyuan siliconflow venice \
            ollama custom xai cerebras nvidia github-models bedrock vertex vllm llamacpp";
        for slug in wanted.split_whitespace() {
            assert!(find(slug).is_some(), "{slug}");
        }
        assert_eq!(all().len(), wanted.split_whitespace().count());
        for vendor in all() {
            assert!(!super::super::RESERVED_SLUGS.contains(&vendor.slug.as_ref()), "{}", vendor.slug);
            if let Some(url) = &vendor.base_url {
                assert!(BaseUrl::parse(url).is_ok(), "{url}");
            }
            for root in vendor.roots.iter() {
                assert!(!root.prefix.starts_with('/') && !root.prefix.ends_with('/'), "{root:?}");
                if let RootTarget::Path(path) = &root.target {
                    assert!(path.starts_with('/') && !path.ends_with('/'), "{root:?}");
                }
            }
        }
        for name in ["constructor", "toString", "__proto__", "", "OpenAI"] {
            assert!(find(name).is_none(), "{name}");
        }
    }
}
