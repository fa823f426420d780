//! Every text that REST says to people, in English and Chinese.
//!
//! Invariant: a code that [`super::problem::Problem`] can carry has an entry
//! here; a test walks the sources of this crate for codes without one.

use http::{HeaderMap, header};

/// A language we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The default.
    English,
    /// Simplified.
    Chinese,
}

impl Language {
    /// The best language of `Accept-Language`.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(text) = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()) else {
            return Self::English;
        };
        let mut best = (Self::English, 0.0_f32);
        for range in text.split(',').take(16) {
            let mut parts = range.split(';');
            let tag = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
            let quality = parts
                .find_map(|part| part.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()))
                .unwrap_or(1.0);
            let language = match tag.split('-').next() {
                Some("zh") => Self::Chinese,
                Some("en" | "*") => Self::English,
                _ => continue,
            };
            if quality > best.1 {
                best = (language, quality);
            }
        }
        best.0
    }

    /// BCP 47.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }
}

struct Entry {
    code: &'static str,
    title: [&'static str; 2],
    detail: [&'static str; 2],
}

const fn entry(code: &'static str, title: [&'static str; 2], detail: [&'static str; 2]) -> Entry {
    Entry { code, title, detail }
}

#[rustfmt::skip]
const PROBLEMS: &[Entry] = &[
    entry("validation_failed", ["Invalid request", "请求无效"],
        ["One or more fields are not valid; see errors.", "一个或多个字段无效，详见 errors。"]),
    entry("invalid_parameter", ["Invalid parameter", "参数无效"],
        ["A query parameter or header is not valid; see errors.", "查询参数或请求头无效，详见 errors。"]),
    entry("invalid_json", ["Not JSON", "不是 JSON"],
        ["The request body is not valid JSON (line {line}, column {column}).", "请求体不是有效的 JSON（第 {line} 行，第 {column} 列）。"]),
    entry("unsupported_media_type", ["Unsupported media type", "不支持的媒体类型"],
        ["Send the body as content-type: application/json.", "请以 content-type: application/json 发送请求体。"]),
    entry("request_too_large", ["Request too large", "请求过大"],
        ["The request body is larger than {limit} bytes.", "请求体超过 {limit} 字节。"]),
    entry("request_incomplete", ["Request incomplete", "请求不完整"],
        ["The request body ended early or did not arrive in time.", "请求体提前结束或未能及时到达。"]),
    entry("not_found", ["Not found", "未找到"],
        ["There is no such {what}, or it is not yours to see.", "该资源（{what}）不存在，或您无权查看。"]),
    entry("route_unknown", ["Not found", "未找到"],
        ["There is nothing at this path; /openapi.json lists every path.", "此路径不存在；所有路径见 /openapi.json。"]),
    entry("method_not_allowed", ["Method not allowed", "方法不允许"],
        ["This path does not answer {method}; see the allow header.", "此路径不支持 {method}；请参阅 allow 响应头。"]),
    entry("token_missing", ["Authentication required", "需要身份验证"],
        ["Send an API token as Authorization: Bearer cga_….", "请通过 Authorization: Bearer cga_… 提供 API 令牌。"]),
    entry("token_invalid", ["Authentication failed", "身份验证失败"],
        ["The token is not known, was revoked or is mistyped.", "令牌未知、已吊销或输入有误。"]),
    entry("token_expired", ["Authentication failed", "身份验证失败"],
        ["The token has expired; mint a new one.", "令牌已过期，请签发新的令牌。"]),
    entry("tenant_required", ["Tenant required", "需要指定租户"],
        ["This token may act for more than one tenant: name one in x-clawgate-tenant.", "此令牌可用于多个租户：请在 x-clawgate-tenant 中指定其一。"]),
    entry("forbidden", ["Not allowed", "无权限"],
        ["Your role does not allow this ({permission}).", "您的角色无权执行此操作（{permission}）。"]),
    entry("grant_exceeds_grantor", ["Not allowed", "无权限"],
        ["You cannot grant a role above your own.", "不能授予高于您自身的角色。"]),
    entry("tenant_suspended", ["Tenant suspended", "租户已停用"],
        ["This tenant is suspended; only a platform administrator can change it.", "该租户已停用；仅平台管理员可以更改。"]),
    entry("conflict", ["Conflict", "冲突"],
        ["This conflicts with what exists: {detail}", "与现有数据冲突：{detail}"]),
    entry("already_exists", ["Already exists", "已存在"],
        ["{what} already exists: {field} must be unique.", "{what} 已存在：{field} 必须唯一。"]),
    entry("still_in_use", ["Still in use", "仍在使用"],
        ["{what} is still in use and cannot be deleted.", "{what} 仍在使用，无法删除。"]),
    entry("precondition_failed", ["Changed meanwhile", "已被修改"],
        ["The resource has changed since you read it: read it again and repeat the change.", "资源在您读取后已被修改：请重新读取后再次提交。"]),
    entry("secret_required", ["Secret required", "需要密钥"],
        ["Changing where a key is sent needs the secret again.", "更改密钥的发送地址时必须重新提供密钥。"]),
    entry("not_run_by_us", ["Not run by us", "非本系统运行"],
        ["This bot's adapter is external: it is started and stopped where it runs. Suspend it to refuse its requests.", "该机器人为外部（external）适配器：请在其运行处启动或停止。如需拒绝其请求，请将其暂停。"]),
    entry("runner_failed", ["Runner not available", "运行器不可用"],
        ["The bot's runner does not do this now ({reason}); look at the bot's diagnostics, then try again.", "该机器人的运行器目前无法执行此操作（{reason}）；请查看其诊断信息后重试。"]),
    entry("idempotency_key_reused", ["Idempotency key reused", "幂等键被重复使用"],
        ["This Idempotency-Key was used for a different request.", "此 Idempotency-Key 已用于另一个不同的请求。"]),
    entry("idempotency_in_progress", ["Still in progress", "仍在处理中"],
        ["The first request with this Idempotency-Key is still in progress; ask again in a moment.", "使用此 Idempotency-Key 的首个请求仍在处理中，请稍后再试。"]),
    entry("host_not_allowed", ["Host not allowed", "主机名不被允许"],
        ["This server does not answer under that host name; add it to allowed_hosts.", "服务器不以该主机名提供服务；请将其加入 allowed_hosts。"]),
    entry("database_busy", ["Database busy", "数据库繁忙"],
        ["The database is locked or out of reach; nothing was changed. Try again.", "数据库被锁定或无法访问；未做任何更改。请重试。"]),
    entry("limit_reached", ["Limit reached", "达到上限"],
        ["{what}: the limit of {limit} is reached.", "{what}：已达到上限 {limit}。"]),
    entry("secret_unreadable", ["Secret cannot be opened", "密钥无法打开"],
        ["A sealed value does not open with this master key.", "密封的值无法用此主密钥打开。"]),
    entry("internal", ["Internal error", "内部错误"],
        ["Something failed inside; the log has the cause under this request's id.", "内部发生错误；原因见日志中此请求的编号。"]),
];

#[rustfmt::skip]
const RULES: &[(&str, [&str; 2])] = &[
    ("required", ["is required", "为必填项"]),
    ("unknown", ["is not a field of this request", "不是此请求的字段"]),
    ("type", ["has the wrong type", "类型错误"]),
    ("format", ["has the wrong form", "格式错误"]),
    ("range", ["is out of range", "超出范围"]),
    ("length", ["has the wrong length", "长度错误"]),
    ("unique", ["is already taken", "已被占用"]),
    ("one_of", ["is not one of the allowed values", "不是允许的取值"]),
    ("exists", ["names something that does not exist", "引用的对象不存在"]),
    ("not_allowed", ["is not allowed", "不被允许"]),
    ("reserved", ["is reserved", "为保留值"]),
    ("duplicate", ["is given more than once", "重复出现"]),
];

/// Title and detail of a code. An unknown code shows itself.
#[must_use]
pub fn problem(language: Language, code: &str, params: &[(&'static str, String)]) -> (String, String) {
    let at = usize::from(language == Language::Chinese);
    let Some(entry) = PROBLEMS.iter().find(|entry| entry.code == code) else {
        return (code.to_owned(), code.to_owned());
    };
    let pick = |texts: &[&str; 2]| texts.get(at).copied().unwrap_or_default().to_owned();
    let mut detail = pick(&entry.detail);
    for (name, value) in params {
        detail = detail.replace(&format!("{{{name}}}"), value);
    }
    (pick(&entry.title), detail)
}

/// The text of a rule; `message` says more, in English.
#[must_use]
pub fn rule(language: Language, rule: &str, message: Option<&str>) -> String {
    let known = RULES.iter().find(|(name, _)| *name == rule).map(|(_, texts)| texts);
    match (language, message, known) {
        (Language::Chinese, Some(message), Some([_, chinese])) => format!("{chinese}（{message}）"),
        (Language::Chinese, None, Some([_, chinese])) => (*chinese).to_owned(),
        (_, Some(message), _) => message.to_owned(),
        (_, None, Some([english, _])) => (*english).to_owned(),
        (_, None, None) => rule.to_owned(),
    }
}

/// Whether a code has texts; for the test that looks for codes without.
#[must_use]
pub fn has(code: &str) -> bool {
    PROBLEMS.iter().any(|entry| entry.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_best_one_asked_for() {
        for (text, wanted) in [
            ("", Language::English),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-GB, zh;q=0.5", Language::English),
            ("fr, zh;q=0.3", Language::Chinese),
            ("zh;q=0", Language::English),
            ("\u{ff}", Language::English),
        ] {
            let mut headers = HeaderMap::new();
            if let Ok(value) = text.parse() {
                headers.insert(header::ACCEPT_LANGUAGE, value);
            }
            assert_eq!(Language::of(&headers), wanted, "{text}");
        }
    }

    #[test]
    fn every_code_of_the_sources_has_its_texts() {
        fn sources(folder: &std::path::Path, found: &mut String) {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    sources(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.push_str(&std::fs::read_to_string(path).expect("a file"));
                }
            }
        }
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut text = String::new();
        sources(&root.join("http"), &mut text);
        let error = std::fs::read_to_string(root.join("domain/error.rs")).expect("a file");
        let after = |marker: &str, text: &str| -> Vec<String> {
            text.split(marker)
                .skip(1)
                .filter_map(|rest| Some(rest.split_once('"')?.1.split('"').next()?.to_owned()))
                .collect()
        };
        let mut codes = after("Problem::new(StatusCode::", &text);
        codes.extend(after("Self::new(StatusCode::", &text));
        codes.extend(after("challenge(", &text));
        let arms = error.split("fn code(").nth(1).expect("the codes");
        codes.extend(after("=> ", arms.split("\n    }\n").next().expect("their end")));
        assert!(codes.len() > 25, "{codes:?}");
        for code in codes.iter().filter(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')) {
            assert!(has(code), "{code}");
        }
    }

    #[test]
    fn placeholders_are_filled() {
        let (_, detail) = problem(Language::English, "not_found", &[("what", "bot".into())]);
        assert_eq!(detail, "There is no such bot, or it is not yours to see.");
        assert!(has("internal") && !has("nonsense"));
    }
}
