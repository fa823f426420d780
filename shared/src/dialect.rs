//! The languages spoken on the wire.

/// Whose error shape, rate-limit header names and stream terminators a caller
/// expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"},"request_id"}`
    Anthropic,
    /// `{"error":{"code","message","status","details"}}`
    Gemini,
}

impl Dialect {
    /// Stable name, as in the database and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::OpenAi, Self::Anthropic, Self::Gemini].into_iter().find(|d| d.as_str() == text)
    }
}

/// Where usage stands in an answer: one per route family of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `chat/completions`
    OpenAiChat,
    /// `completions`
    OpenAiCompletions,
    /// `responses`
    OpenAiResponses,
    /// `embeddings`
    OpenAiEmbeddings,
    /// `messages`
    AnthropicMessages,
    /// `models/{m}:generateContent`, `:streamGenerateContent`
    Gemini,
    /// Relayed and counted as a request; no usage is read from it.
    Opaque,
}

impl Protocol {
    /// Whether `stream_options.include_usage` is a field of this protocol.
    #[must_use]
    pub const fn has_stream_options(self) -> bool {
        matches!(self, Self::OpenAiChat | Self::OpenAiCompletions)
    }
}
