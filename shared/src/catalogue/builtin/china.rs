//! Vendors in mainland China; an international address, where there is one, is
//! a key's own base URL.

use std::borrow::Cow;

use super::super::routes::{ANTHROPIC_SKIN, OPENAI, account, account_at, elsewhere, forbidden, maker, plain, post};
use super::super::{IncludeUsage, Route, Vendor, key_errors};
use super::{openai_like, roots, routes, to_base, to_path};
use crate::dialect::Protocol;

const ZHIPU: &[Route] = &[
    plain("tokenizer"),
    plain("web_search"),
    plain("layout_parsing"),
    maker("async/**"),
    account("async-result/*"),
    maker("videos/generations"),
    maker("agents/**"),
];

const MOONSHOT: &[Route] =
    &[forbidden("users/**"), plain("tokenizers/estimate-token-count"), account("caching"), account("caching/**")];

const DASHSCOPE: &[Route] = &[
    forbidden("tokens"),
    forbidden("tokens/**"),
    forbidden("api-keys"),
    forbidden("api-keys/**"),
    forbidden("workspaces/**"),
    post("services/aigc/text-generation/generation", Protocol::DashScope),
    post("services/aigc/multimodal-generation/generation", Protocol::DashScope),
    plain("services/aigc/image-generation/generation"),
    plain("services/aigc/text2image/image-synthesis"),
    plain("services/aigc/image2image/image-synthesis"),
    post("services/embeddings/*/*", Protocol::DashScope),
    post("services/rerank/*/*", Protocol::Rerank),
    plain("services/audio/**"),
    plain("services/chat/completions"),
    post("apps/*/completion", Protocol::DashScope),
    plain("tokenizer"),
    post("reranks", Protocol::Rerank),
    maker("services/aigc/video-generation/**"),
    account("tasks"),
    account("tasks/**"),
];

const DOUBAO: &[Route] = &[
    post("bots/chat/completions", Protocol::OpenAiChat),
    post("embeddings/multimodal", Protocol::OpenAiEmbeddings),
    plain("tokenization"),
    account_at("contents/generations/**", 3),
    maker("context/create"),
    elsewhere("context/**"),
    elsewhere("batch/**"),
];

const MINIMAX: &[Route] = &[
    post("text/chatcompletion_v2", Protocol::OpenAiChat),
    post("text/chatcompletion_pro", Protocol::OpenAiChat),
    post("text/chatcompletion", Protocol::OpenAiChat),
    plain("t2a_v2"),
    plain("t2a_pro"),
    plain("image_generation"),
    plain("music_generation"),
    maker("video_generation"),
    elsewhere("query/**"),
    maker("t2a_async_v2"),
    elsewhere("voice_clone"),
    elsewhere("get_voice"),
    maker("files/upload"),
    elsewhere("files/retrieve"),
    elsewhere("files/retrieve_content"),
    elsewhere("files/delete"),
];

const SILICONFLOW: &[Route] = &[
    forbidden("user/**"),
    maker("video/submit"),
    elsewhere("video/**"),
    maker("uploads/audio/voice"),
    elsewhere("audio/voice/**"),
];

/// The list.
pub(super) fn vendors() -> Vec<Vendor> {
    let mut list = with_own_roots();
    list.extend(of_model_makers());
    list.extend(like_openai());
    list
}

/// Those with more than one root.
fn with_own_roots() -> Vec<Vendor> {
    vec![
        Vendor {
            roots: roots(&[
                to_base("v1"),
                to_base("v4"),
                to_base("paas/v4"),
                to_base("api/paas/v4"),
                to_path("coding/paas/v4", "/api/coding/paas/v4"),
                to_path("api/coding/paas/v4", "/api/coding/paas/v4"),
                to_path("anthropic/v1", "/api/anthropic/v1"),
                to_path("api/anthropic/v1", "/api/anthropic/v1"),
            ]),
            routes: routes(&[ZHIPU, OPENAI, ANTHROPIC_SKIN]),
            key_errors: Cow::Borrowed(key_errors::ZHIPU),
            ..openai_like(
                "zhipu",
                "Zhipu GLM",
                "https://open.bigmodel.cn/api/paas/v4",
                "https://open.bigmodel.cn/usercenter/apikeys",
            )
        },
        Vendor {
            roots: roots(&[to_base("v1"), to_path("anthropic/v1", "/anthropic/v1")]),
            routes: routes(&[MOONSHOT, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like(
                "moonshot",
                "Moonshot Kimi",
                "https://api.moonshot.cn/v1",
                "https://platform.moonshot.cn/console/api-keys",
            )
        },
        Vendor {
            include_usage: IncludeUsage::Never,
            ..openai_like(
                "baichuan",
                "Baichuan",
                "https://api.baichuan-ai.com/v1",
                "https://platform.baichuan-ai.com/console/apikey",
            )
        },
        Vendor {
            roots: roots(&[
                to_base("v1"),
                to_base("compatible-mode/v1"),
                to_path("api/v1", "/api/v1"),
                to_path("compatible-api/v1", "/compatible-api/v1"),
                to_path("apps/anthropic/v1", "/apps/anthropic/v1"),
            ]),
            routes: routes(&[DASHSCOPE, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like(
                "dashscope",
                "Alibaba DashScope",
                "https://dashscope.aliyuncs.com/compatible-mode/v1",
                "https://bailian.console.aliyun.com/?tab=model#/api-key",
            )
        },
    ]
}

/// StepFun and Doubao.
fn of_model_makers() -> Vec<Vendor> {
    vec![
        Vendor {
            include_usage: IncludeUsage::Passthrough,
            routes: routes(&[OPENAI, ANTHROPIC_SKIN]),
            ..openai_like(
                "stepfun",
                "StepFun",
                "https://api.stepfun.com/v1",
                "https://platform.stepfun.com/interface-key",
            )
        },
        Vendor {
            roots: roots(&[
                to_base("v1"),
                to_base("v3"),
                to_base("api/v3"),
                to_path("coding/v3", "/api/coding/v3"),
                to_path("api/coding/v3", "/api/coding/v3"),
                to_path("compatible/v1", "/api/compatible/v1"),
                to_path("api/compatible/v1", "/api/compatible/v1"),
            ]),
            routes: routes(&[DOUBAO, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like(
                "doubao",
                "Volcengine Doubao",
                "https://ark.cn-beijing.volces.com/api/v3",
                "https://console.volcengine.com/ark/region:ark+cn-beijing/apiKey",
            )
        },
    ]
}

/// Those that are OpenAI-compatible and little more.
fn like_openai() -> Vec<Vendor> {
    vec![
        Vendor {
            include_usage: IncludeUsage::Passthrough,
            roots: roots(&[to_base("v1"), to_path("anthropic/v1", "/anthropic/v1")]),
            routes: routes(&[MINIMAX, OPENAI, ANTHROPIC_SKIN]),
            key_errors: Cow::Borrowed(key_errors::MINIMAX),
            hides_errors: true,
            ..openai_like(
                "minimax",
                "MiniMax",
                "https://api.minimaxi.com/v1",
                "https://platform.minimaxi.com/user-center/basic-information/interface-key",
            )
        },
        Vendor {
            include_usage: IncludeUsage::Never,
            ..openai_like(
                "yi",
                "01.AI Yi",
                "https://api.lingyiwanwu.com/v1",
                "https://platform.lingyiwanwu.com/apikeys",
            )
        },
        Vendor {
            include_usage: IncludeUsage::Passthrough,
            ..openai_like(
                "hunyuan",
                "Tencent Hunyuan",
                "https://api.hunyuan.cloud.tencent.com/v1",
                "https://console.cloud.tencent.com/hunyuan/api-key",
            )
        },
        Vendor {
            routes: routes(&[SILICONFLOW, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like(
                "siliconflow",
                "SiliconFlow",
                "https://api.siliconflow.cn/v1",
                "https://cloud.siliconflow.cn/account/ak",
            )
        },
    ]
}
