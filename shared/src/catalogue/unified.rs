//! The unified routes, and where each of them is with a vendor.

use std::borrow::Cow;

use super::resolve::resolve;
use super::{Route, RouteClass, Vendor};
use crate::dialect::{Dialect, Protocol};

/// A route without a vendor in its path: the model's name decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnifiedRoute {
    /// `chat/completions`
    ChatCompletions,
    /// `responses`
    Responses,
    /// `embeddings`
    Embeddings,
    /// `messages`
    Messages,
    /// `messages/count_tokens`
    CountTokens,
}

impl UnifiedRoute {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::ChatCompletions, Self::Responses, Self::Embeddings, Self::Messages, Self::CountTokens];

    /// What follows `/v1/`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat/completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::CountTokens => "messages/count_tokens",
        }
    }

    /// The inverse of [`Self::path`].
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.path() == path)
    }

    /// The unified form of a vendor's route, if it has one.
    #[must_use]
    pub fn of_route(route: &Route) -> Option<Self> {
        Self::ALL.into_iter().find(|unified| unified.is(route))
    }

    /// What is spoken on it.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::ChatCompletions => Protocol::OpenAiChat,
            Self::Responses => Protocol::OpenAiResponses,
            Self::Embeddings => Protocol::OpenAiEmbeddings,
            Self::Messages => Protocol::AnthropicMessages,
            Self::CountTokens => Protocol::PromptCount,
        }
    }

    /// Whose errors its callers expect.
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Embeddings => Dialect::OpenAi,
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
        }
    }

    /// The vendor of a model whose name does not say one.
    #[must_use]
    pub const fn home(self) -> &'static str {
        match self.dialect() {
            Dialect::Anthropic => "anthropic",
            Dialect::OpenAi | Dialect::Gemini => "openai",
        }
    }

    /// Where it is with `vendor`, below `/v1/{vendor}/`. `None`: the vendor does
    /// not speak this protocol, or only on paths that say more than we know.
    #[must_use]
    pub fn at(self, vendor: &Vendor) -> Option<Cow<'static, str>> {
        let usual = match self.prefix(&vendor.slug) {
            "" => Cow::Borrowed(self.path()),
            prefix => Cow::Owned(format!("{prefix}{}", self.path())),
        };
        if resolve(vendor, "POST", &usual).is_ok_and(|found| self.is(found.route)) {
            return Some(usual);
        }
        let plain = |pattern: &str| !pattern.contains(['*', '{']);
        let listed = vendor.routes.iter().find(|route| self.is(route) && plain(&route.pattern))?;
        let path = listed.pattern.clone();
        resolve(vendor, "POST", &path).is_ok_and(|found| self.is(found.route)).then_some(path)
    }

    fn is(self, route: &Route) -> bool {
        let ends = route.pattern.strip_suffix(self.path()).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
        ends && route.class == RouteClass::Inference && route.protocol == self.protocol()
    }

    /// What stands before it in a built-in vendor's paths; ends with `/` or is
    /// empty.
    fn prefix(self, slug: &str) -> &'static str {
        match (self.dialect(), slug) {
            (Dialect::Anthropic, "deepseek" | "zhipu" | "moonshot" | "minimax" | "azure-openai" | "bedrock") => {
                "anthropic/v1/"
            }
            (Dialect::Anthropic, "dashscope") => "apps/anthropic/v1/",
            (Dialect::Anthropic, "doubao") => "compatible/v1/",
            (Dialect::OpenAi, "google") => "openai/",
            (Dialect::OpenAi, "cohere") => "compatibility/v1/",
            (Dialect::OpenAi, "azure-openai" | "bedrock") => "openai/v1/",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CustomVendor, base_for_key, find};
    use super::*;

    /// The whole URL of a route at a vendor, for a vendor with an address.
    fn url(route: UnifiedRoute, slug: &str) -> Option<String> {
        let vendor = find(slug).expect(slug);
        let rest = route.at(vendor)?;
        let resolved = resolve(vendor, "POST", &rest).expect("a route");
        let base = base_for_key(vendor, None, resolved.root).expect("an address");
        Some(format!("{}{}", base.origin.host, resolved.upstream_path(&base)))
    }

    #[test]
    fn every_route_is_where_the_vendor_has_it() {
        use UnifiedRoute as R;
        for (route, vendor, wanted) in [
            (R::ChatCompletions, "openai", Some("api.openai.com/v1/chat/completions")),
            (R::Responses, "openai", Some("api.openai.com/v1/responses")),
            (R::Embeddings, "openai", Some("api.openai.com/v1/embeddings")),
            (R::Messages, "openai", None),
            (R::Messages, "anthropic", Some("api.anthropic.com/v1/messages")),
            (R::CountTokens, "anthropic", Some("api.anthropic.com/v1/messages/count_tokens")),
            (R::ChatCompletions, "anthropic", Some("api.anthropic.com/v1/chat/completions")),
            (R::Responses, "anthropic", None),
            (R::ChatCompletions, "google", Some("generativelanguage.googleapis.com/v1beta/openai/chat/completions")),
            (R::Embeddings, "cohere", Some("api.cohere.com/compatibility/v1/embeddings")),
            (R::Messages, "cohere", None),
            (R::Messages, "deepseek", Some("api.deepseek.com/anthropic/v1/messages")),
            (R::CountTokens, "deepseek", Some("api.deepseek.com/anthropic/v1/messages/count_tokens")),
            (R::ChatCompletions, "deepseek", Some("api.deepseek.com/chat/completions")),
            (R::Messages, "zhipu", Some("open.bigmodel.cn/api/anthropic/v1/messages")),
            (R::Messages, "dashscope", Some("dashscope.aliyuncs.com/apps/anthropic/v1/messages")),
            (R::Messages, "doubao", Some("ark.cn-beijing.volces.com/api/compatible/v1/messages")),
            (R::Messages, "openrouter", Some("openrouter.ai/api/v1/messages")),
            (R::Messages, "ollama", Some("localhost/v1/messages")),
            (R::ChatCompletions, "perplexity", Some("api.perplexity.ai/chat/completions")),
            (R::Responses, "perplexity", Some("api.perplexity.ai/v1/responses")),
            (R::ChatCompletions, "vertex", None),
        ] {
            assert_eq!(url(route, vendor).as_deref(), wanted, "{route:?} at {vendor}");
        }
    }

    #[test]
    fn a_listed_path_of_a_tenants_vendor_is_found() {
        let routes = ["llm/v2/chat/completions".to_owned(), "x/{m}/embeddings".to_owned()];
        let fields = CustomVendor {
            slug: "house",
            title: "House",
            base_url: "https://llm.example.com",
            auth: "bearer",
            dialect: "openai",
            include_usage: "",
            routes: &routes,
        };
        let vendor = Vendor::custom(fields).expect("valid");
        assert_eq!(UnifiedRoute::ChatCompletions.at(&vendor).as_deref(), Some("llm/v2/chat/completions"));
        assert_eq!(UnifiedRoute::Embeddings.at(&vendor), None, "the path wants to know the model");
    }

    #[test]
    fn a_vendors_route_knows_its_unified_form() {
        for (slug, path, wanted) in [
            ("openai", "chat/completions", Some(UnifiedRoute::ChatCompletions)),
            ("deepseek", "anthropic/v1/messages", Some(UnifiedRoute::Messages)),
            ("anthropic", "messages/count_tokens", Some(UnifiedRoute::CountTokens)),
            ("openai", "completions", None),
            ("google", "models/m:generateContent", None),
            ("google", "models/m:countTokens", None),
        ] {
            let resolved = resolve(find(slug).expect(slug), "POST", path).expect(path);
            assert_eq!(UnifiedRoute::of_route(resolved.route), wanted, "{slug} {path}");
        }
        for route in UnifiedRoute::ALL {
            assert_eq!(UnifiedRoute::of_path(route.path()), Some(route));
        }
    }
}
