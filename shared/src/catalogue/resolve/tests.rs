use proptest::prelude::*;

use super::super::{all, find};
use super::*;

/// The whole upstream URL, or the error.
fn url(vendor: &str, method: &str, rest: &str, key: Option<&str>) -> Result<String, ResolveError> {
    let vendor = find(vendor).expect("built in");
    let key = key.map(|url| BaseUrl::parse(url).expect("valid"));
    let resolved = resolve(vendor, method, rest)?;
    let base = base_for_key(vendor, key.as_ref(), resolved.root).expect("a base");
    Ok(format!(
        "{}://{}{}",
        if base.origin.tls { "https" } else { "http" },
        base.origin.authority(),
        resolved.upstream_path(&base)
    ))
}

#[test]
fn equal_ways_lead_to_one_place() {
    for (vendor, rest, want) in [
        ("openai", "chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("openai", "v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("openai", "/chat/completions", "https://api.openai.com/v1//chat/completions"),
        ("openai", "//v1//chat/completions", "https://api.openai.com/v1////chat/completions"),
        ("anthropic", "messages", "https://api.anthropic.com/v1/messages"),
        ("anthropic", "v1/messages", "https://api.anthropic.com/v1/messages"),
        (
            "google",
            "models/m:generateContent",
            "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
        ),
        (
            "google",
            "v1beta/models/m:generateContent",
            "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
        ),
        (
            "google",
            "v1alpha/models/m%3AgenerateContent",
            "https://generativelanguage.googleapis.com/v1alpha/models/m%3AgenerateContent",
        ),
        (
            "google",
            "v1beta/openai/chat/completions",
            "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        ),
        ("groq", "openai/v1/chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
        ("openrouter", "api/v1/chat/completions", "https://openrouter.ai/api/v1/chat/completions"),
        ("deepseek", "v1/chat/completions", "https://api.deepseek.com/chat/completions"),
        ("deepseek", "anthropic/v1/messages", "https://api.deepseek.com/anthropic/v1/messages"),
        ("zhipu", "coding/paas/v4/chat/completions", "https://open.bigmodel.cn/api/coding/paas/v4/chat/completions"),
        (
            "dashscope",
            "api/v1/services/aigc/text-generation/generation",
            "https://dashscope.aliyuncs.com/api/v1/services/aigc/text-generation/generation",
        ),
        ("perplexity", "v1/chat/completions", "https://api.perplexity.ai/chat/completions"),
        ("perplexity", "v1/embeddings", "https://api.perplexity.ai/v1/embeddings"),
        ("cohere", "v2/chat", "https://api.cohere.com/v2/chat"),
        ("ollama", "api/chat", "http://localhost:11434/api/chat"),
        (
            "vertex",
            "v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent",
        ),
    ] {
        assert_eq!(url(vendor, "POST", rest, None).as_deref(), Ok(want), "{vendor} {rest}");
    }
}

#[test]
fn a_keys_own_base_stands_for_the_vendors() {
    for (vendor, rest, key, want) in [
        ("openai", "v1/chat/completions", "http://127.0.0.1:9001/replay/openai/x", "/replay/openai/x/chat/completions"),
        ("google", "v1alpha/models/m:countTokens", "http://127.0.0.1:9001/p/v1beta", "/p/v1alpha/models/m:countTokens"),
        ("google", "v1alpha/models/m:countTokens", "http://127.0.0.1:9001/p", "/p/v1alpha/models/m:countTokens"),
        ("google", "v1beta/models/m:countTokens", "http://127.0.0.1:9001/p", "/p/models/m:countTokens"),
        (
            "azure-openai",
            "/openai/deployments/d/chat/completions",
            "http://127.0.0.1:9001",
            "/openai//deployments/d/chat/completions",
        ),
        (
            "azure-openai",
            "openai/deployments/d/chat/completions",
            "http://127.0.0.1:9001/openai/v1",
            "/openai/deployments/d/chat/completions",
        ),
        ("azure-openai", "chat/completions", "http://127.0.0.1:9001/openai/v1", "/openai/v1/chat/completions"),
        ("azure-openai", "v1/responses", "http://127.0.0.1:9001", "/openai/v1/responses"),
        ("azure-openai", "models/chat/completions", "http://127.0.0.1:9001", "/models/chat/completions"),
        ("custom", "v1/chat/completions", "http://127.0.0.1:9001/v1", "/v1/chat/completions"),
        (
            "dashscope",
            "api/v1/apps/a/completion",
            "http://127.0.0.1:9001/compatible-mode/v1",
            "/api/v1/apps/a/completion",
        ),
    ] {
        let found = url(vendor, "POST", rest, Some(key));
        // Slashes the client doubled stay doubled, wherever the root stood.
        let squeezed = found.as_deref().map(|url| url.replace("http://127.0.0.1:9001", "").replace("//", "/"));
        assert_eq!(squeezed, Ok(want.replace("//", "/")), "{vendor} {rest}");
    }
    let azure = find("azure-openai").expect("built in");
    assert_eq!(base_for_key(azure, None, None), None);
}

#[test]
fn the_path_names_the_model() {
    for (vendor, rest, model) in [
        ("google", "models/gemini-2.5-flash:generateContent", Some("gemini-2.5-flash")),
        ("google", "v1beta/models/gemini-2.5-flash:streamGenerateContent", Some("gemini-2.5-flash")),
        ("azure-openai", "openai/deployments/my%20d/chat/completions", Some("my d")),
        ("bedrock", "model/amazon.nova-micro-v1%3A0/converse", Some("amazon.nova-micro-v1:0")),
        ("vertex", "v1/projects/p/locations/l/publishers/anthropic/models/c@1:rawPredict", Some("c@1")),
        ("openai", "chat/completions", None),
    ] {
        let resolved = resolve(find(vendor).expect("built in"), "POST", rest).expect(rest);
        assert_eq!(resolved.model.as_deref(), model, "{rest}");
    }
}

#[test]
fn classes_methods_and_dialects() {
    use ResolveError as E;
    let openai = find("openai").expect("built in");
    let class = |method, rest| resolve(openai, method, rest).map(|found| found.route.class);
    let resource = |method, rest| matches!(class(method, rest), Ok(RouteClass::AccountResource(_)));
    assert_eq!(class("POST", "responses"), Ok(RouteClass::Inference));
    assert!(resource("GET", "responses/resp_1"));
    assert!(resource("GET", "chat/completions"));
    assert!(resource("POST", "v1/files"));
    assert_eq!(class("DELETE", "models/ft:x"), Err(E::Method { allowed: vec!["GET"] }));
    assert_eq!(class("POST", "organization/admin_api_keys"), Err(E::Forbidden));
    assert_eq!(class("POST", "v1/realtime/client_secrets"), Err(E::Forbidden));
    assert_eq!(class("POST", "realtime/client%5Fsecrets"), Err(E::Forbidden));
    assert_eq!(class("POST", "/realtime//client_secrets/"), Err(E::Forbidden));
    assert_eq!(class("POST", "nothing/here"), Err(E::NotListed));
    assert_eq!(class("POST", ""), Err(E::Empty));
    assert_eq!(class("POST", "//"), Err(E::Empty));
    let google = find("google").expect("built in");
    assert_eq!(resolve(google, "POST", "v1alpha/auth_tokens").err(), Some(E::Forbidden));
    let dialect = |vendor: &str, rest| resolve(find(vendor).expect("built in"), "POST", rest).expect(rest).dialect();
    assert_eq!(dialect("google", "openai/chat/completions"), Dialect::OpenAi);
    assert_eq!(dialect("google", "models/m:countTokens"), Dialect::Gemini);
    assert_eq!(dialect("minimax", "anthropic/v1/messages"), Dialect::Anthropic);
    assert_eq!(dialect("anthropic", "messages/count_tokens"), Dialect::Anthropic);
}

#[test]
fn traversal_is_refused_in_every_spelling() {
    let up = [
        "..",
        ".",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "%2e",
        "%252e%252e",
        "%25252e%25252e",
        "..%2f",
        "%2f",
        "%5c",
        "..%5c",
        "\\",
        "..\\",
        "%00",
        "%0a",
        "%0d%0a",
        "..;",
        "..;a=b",
        "%2e%2e%3b",
        "%c0%ae%c0%ae",
        "%c0%af",
        "%zz",
        "%",
        "%2",
        "%u002e",
        "a%2f..%2fb",
        "...",
        ".. ",
        "%20..",
        "a%3fb",
        "a%23b",
        "a#b",
        "%252f",
        "%255c",
        "%2500",
        "\u{1}",
        "a\tb",
        "%7f",
    ];
    let mut tried = 0;
    for vendor in all() {
        for part in up {
            for rest in [
                format!("{part}/chat/completions"),
                format!("chat/{part}/completions"),
                format!("chat/completions/{part}"),
                format!("v1/{part}/chat/completions"),
                format!("models/{part}"),
                format!("files/{part}/x"),
            ] {
                tried += 1;
                let found = resolve(vendor, "GET", &rest);
                assert!(matches!(found, Err(ResolveError::Unsafe)), "{} {rest}: {found:?}", vendor.slug);
            }
        }
    }
    assert!(tried > 120);
}

#[test]
fn odd_but_harmless_paths_pass_byte_for_byte() {
    for rest in
        ["models/a%20b", "models/%e6%a8%a1", "models/a@b", "models/..a", "models/a..b", "models/100%25", "models/a:b~c"]
    {
        let want = format!("https://api.openai.com/v1/{rest}");
        assert_eq!(url("openai", "GET", rest, None).as_deref(), Ok(want.as_str()), "{rest}");
    }
}

/// Bits a hostile path is made of.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "/",
            "//",
            "..",
            ".",
            "%2e",
            "%2E",
            "%2f",
            "%5c",
            "%25",
            "%00",
            ";",
            "\\",
            "v1",
            "chat",
            "completions",
            "models",
            "files",
            "openai",
            "api",
            "anthropic",
            "?",
            "#",
            "%",
            "@",
            ":",
            "a",
        ])
        .prop_map(str::to_owned),
        "[a-z0-9.%/]{0,6}",
        any::<char>().prop_map(String::from),
    ]
}

/// What a careless server makes of a path: decoded `times`, backslashes turned,
/// parameters cut, dot segments collapsed. `None` when it climbs over the root.
fn careless(path: &str, times: usize) -> Option<Vec<String>> {
    let mut text = path.to_owned();
    for _ in 0..times {
        text = decode_lossy(&text);
    }
    let mut stack = Vec::new();
    for segment in text.replace('\\', "/").split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(stack.pop()?),
            name => stack.push(name.to_owned()),
        }
    }
    Some(stack)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn what_resolves_stays_below_the_base(pieces in prop::collection::vec(piece(), 0..12), pick in any::<prop::sample::Index>()) {
        let rest = pieces.concat();
        let vendors = all();
        let vendor = &vendors[pick.index(vendors.len())];
        if let Ok(resolved) = resolve(vendor, "POST", &rest) {
            let key = BaseUrl::parse("http://127.0.0.1:1/tenant/base").expect("valid");
            let base = base_for_key(vendor, Some(&key), resolved.root).expect("a base");
            let path = resolved.upstream_path(&base);
            prop_assert!(path.ends_with(resolved.remaining));
            for times in 0..4 {
                let segments = careless(&path, times).expect("does not climb");
                let wanted: Vec<_> = base.path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
                prop_assert_eq!(&segments[..wanted.len()], &wanted[..]);
            }
        }
    }
}

#[test]
fn another_model_takes_the_place_of_the_one_in_the_path() {
    for (vendor, rest, model, want) in [
        ("google", "models/fast:generateContent", "gemini-2.5-pro", Some("models/gemini-2.5-pro:generateContent")),
        (
            "google",
            "//v1beta//models/fast%3AstreamGenerateContent",
            "m",
            Some("//v1beta//models/m:streamGenerateContent"),
        ),
        (
            "azure-openai",
            "openai/deployments/fast/chat/completions",
            "d 1",
            Some("openai/deployments/d%201/chat/completions"),
        ),
        ("bedrock", "model/fast/converse", "anthropic.claude:0", Some("model/anthropic.claude:0/converse")),
        ("openai", "chat/completions", "m", None),
    ] {
        let resolved = resolve(find(vendor).expect(vendor), "POST", rest).expect(rest);
        assert_eq!(resolved.with_model(rest, model).as_deref(), want, "{vendor} {rest}");
    }
    let google = find("google").expect("built in");
    let slash = resolve(google, "POST", "models/fast:generateContent").expect("a route");
    let other = slash.with_model("models/fast:generateContent", "a/../b").expect("a path");
    assert_eq!(resolve(google, "POST", &other).err(), Some(ResolveError::Unsafe), "{other}");
}
