//! What proves a provider key: a cheap `GET` that only a working credential is
//! answered.

use super::resolve::longest_root;
use super::{Vendor, base_for_key, find, resolve};
use crate::dialect::Dialect;
use crate::origin::BaseUrl;

impl Vendor {
    /// Where to ask, and with which query (empty: none). `own` is the key's base
    /// URL. `None`: the vendor has no such route that we know of, or there is no
    /// base URL.
    #[must_use]
    pub fn check_url(&self, own: Option<&BaseUrl>) -> Option<(BaseUrl, &'static str)> {
        let (path, query) = match self.slug.as_ref() {
            // Their lists of models are open to everybody, or there is none: an
            // answer would prove nothing.
            "nvidia" | "github-models" | "perplexity" | "bedrock" | "vertex" => return None,
            "openrouter" => ("key", ""),
            "venice" => ("api_keys/rate_limits", ""),
            "cohere" => ("v1/models", "page_size=1"),
            "azure-openai" => ("openai/v1/models", ""),
            slug => {
                let custom = find(slug).is_none();
                if custom && resolve(self, "GET", "models").is_err() {
                    return None;
                }
                match self.dialect {
                    Dialect::OpenAi => ("models", ""),
                    Dialect::Anthropic => ("models", "limit=1"),
                    Dialect::Gemini => ("models", "pageSize=1"),
                }
            }
        };
        let (root, rest) = longest_root(self, path).map_or((None, path), |(root, rest)| (Some(root), rest));
        let mut url = base_for_key(self, own, root)?;
        url.path = format!("{}/{rest}", url.path);
        Some((url, query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::CustomVendor;

    #[test]
    fn every_vendor_is_asked_where_it_answers() {
        let own = BaseUrl::parse("http://127.0.0.1:9001/v1").expect("plain");
        for (slug, url, wanted) in [
            ("openai", None, Some("https://api.openai.com/v1/models")),
            ("openai", Some(&own), Some("http://127.0.0.1:9001/v1/models")),
            ("anthropic", None, Some("https://api.anthropic.com/v1/models?limit=1")),
            ("google", None, Some("https://generativelanguage.googleapis.com/v1beta/models?pageSize=1")),
            ("openrouter", None, Some("https://openrouter.ai/api/v1/key")),
            ("cohere", None, Some("https://api.cohere.com/v1/models?page_size=1")),
            ("azure-openai", None, None),
            ("nvidia", None, None),
            ("custom", None, None),
            ("custom", Some(&own), Some("http://127.0.0.1:9001/v1/models")),
        ] {
            let found = find(slug).expect(slug).check_url(url).map(|(url, query)| match query {
                "" => url.to_string(),
                query => format!("{url}?{query}"),
            });
            assert_eq!(found.as_deref(), wanted, "{slug}");
        }
        let azure = BaseUrl::parse("https://r.openai.azure.com").expect("plain");
        let found = find("azure-openai").expect("built in").check_url(Some(&azure)).map(|(url, _)| url.to_string());
        assert_eq!(found.as_deref(), Some("https://r.openai.azure.com/openai/v1/models"));
    }

    #[test]
    fn a_custom_vendor_is_asked_only_on_a_route_it_lists() {
        let of = |routes: &[String]| {
            let fields = CustomVendor {
                slug: "house",
                title: "House",
                base_url: "https://llm.example.com/v1",
                auth: "bearer",
                dialect: "openai",
                include_usage: "",
                routes,
            };
            Vendor::custom(fields).expect("valid").check_url(None)
        };
        assert!(of(&[]).is_some());
        assert!(of(&["generate".to_owned()]).is_none());
        assert!(of(&["models".to_owned()]).is_some());
    }
}
