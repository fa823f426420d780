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
    /// `realtime`: a WebSocket
    OpenAiRealtime,
    /// `embeddings`
    OpenAiEmbeddings,
    /// `audio/speech`, `audio/transcriptions`, `audio/translations`
    OpenAiAudio,
    /// `images/generations`, `images/edits`, `images/variations`
    OpenAiImages,
    /// `rerank`, of Cohere, Jina, Voyage and those who speak their language
    Rerank,
    /// `messages`
    AnthropicMessages,
    /// `complete`, which reports nothing
    AnthropicComplete,
    /// What counts a prompt and generates nothing; it is never billed.
    PromptCount,
    /// `models/{m}:generateContent`, `:streamGenerateContent`
    Gemini,
    /// `:embedContent`, `:batchEmbedContents`, Vertex's `:predict`
    GeminiEmbed,
    /// `interactions`
    GeminiInteractions,
    /// `…BidiGenerateContent`: a WebSocket
    GeminiLive,
    /// `v2/chat`, `v1/chat`, `v1/generate`
    Cohere,
    /// `v2/embed`, `v1/embed`, `v1/classify`: billed in units
    CohereEmbed,
    /// `api/chat`, `api/generate`
    Ollama,
    /// `api/embed`, `api/embeddings`
    OllamaEmbed,
    /// DashScope's own API: generation, apps, embeddings
    DashScope,
    /// Hunyuan's own API: the action `ChatCompletions`
    Hunyuan,
    /// `model/{m}/converse`, `model/{m}/converse-stream`
    BedrockConverse,
    /// `model/{m}/invoke`, `model/{m}/invoke-with-response-stream`
    BedrockInvoke,
    /// Relayed and counted as a request; no usage is read from it.
    Opaque,
}

impl Protocol {
    /// Every one, once.
    pub const ALL: [Self; 24] = [
        Self::OpenAiChat,
        Self::OpenAiCompletions,
        Self::OpenAiResponses,
        Self::OpenAiRealtime,
        Self::OpenAiEmbeddings,
        Self::OpenAiAudio,
        Self::OpenAiImages,
        Self::Rerank,
        Self::AnthropicMessages,
        Self::AnthropicComplete,
        Self::PromptCount,
        Self::Gemini,
        Self::GeminiEmbed,
        Self::GeminiInteractions,
        Self::GeminiLive,
        Self::Cohere,
        Self::CohereEmbed,
        Self::Ollama,
        Self::OllamaEmbed,
        Self::DashScope,
        Self::Hunyuan,
        Self::BedrockConverse,
        Self::BedrockInvoke,
        Self::Opaque,
    ];

    /// Whether `stream_options.include_usage` is a field of this protocol.
    #[must_use]
    pub const fn has_stream_options(self) -> bool {
        matches!(self, Self::OpenAiChat | Self::OpenAiCompletions)
    }

    /// Whether the most that a request may use is known before it is sent: what
    /// adds to its prompt and what limits its answer is understood. Only such
    /// requests can be held to a quota on tokens or money.
    #[must_use]
    pub const fn is_bounded(self) -> bool {
        matches!(
            self,
            Self::OpenAiChat
                | Self::OpenAiCompletions
                | Self::OpenAiResponses
                | Self::OpenAiEmbeddings
                | Self::AnthropicMessages
                | Self::Gemini
        )
    }

    /// Whether an answer is text that a model wrote to a prompt in the request's
    /// JSON, so that its tokens can be estimated when nobody reports them.
    #[must_use]
    pub const fn generates_text(self) -> bool {
        matches!(
            self,
            Self::OpenAiChat
                | Self::OpenAiCompletions
                | Self::OpenAiResponses
                | Self::AnthropicMessages
                | Self::AnthropicComplete
                | Self::Gemini
                | Self::GeminiInteractions
                | Self::Cohere
                | Self::Ollama
                | Self::DashScope
                | Self::Hunyuan
                | Self::BedrockConverse
                | Self::BedrockInvoke
        )
    }
}
