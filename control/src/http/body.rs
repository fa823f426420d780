//! Requests into types: JSON bodies and query strings, strictly.
//!
//! Invariant: a field that no handler reads is refused by its name, and so is
//! one of the wrong type; nothing is coerced.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::problem::{FieldProblem, Problem};

/// Largest request body of the REST API.
pub const MAX_BODY: usize = 1 << 20;

/// A JSON body that has exactly the fields of `T`.
pub struct StrictJson<T> {
    /// The decoded body.
    pub value: T,
    /// As received: what an idempotency key is compared by.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| body_problem(&rejection))?;
        Ok(Self { value: decode(&bytes)?, bytes })
    }
}

/// A JSON body that is an array; what its elements are is for the handler.
pub struct JsonList(pub Vec<serde_json::Value>);

impl<S: Send + Sync> FromRequest<S> for JsonList {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| body_problem(&rejection))?;
        match serde_json::from_slice(&bytes).map_err(|error| not_json(&error))? {
            serde_json::Value::Array(list) => Ok(Self(list)),
            _ => Err(Problem::invalid(vec![FieldProblem::new("(body)", "type").saying("expected an array")])),
        }
    }
}

/// A JSON body that may be left out; then `T` is its default.
pub struct OptionalJson<T> {
    /// The decoded body or the default.
    pub value: T,
    /// As received.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| body_problem(&rejection))?;
        if bytes.is_empty() {
            return Ok(Self { value: T::default(), bytes });
        }
        require_json(&headers)?;
        Ok(Self { value: decode(&bytes)?, bytes })
    }
}

/// A query string that has no parameter but those of `T`.
pub struct StrictQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        decode_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// A query string whose parameters are those of `A` (all optional, named in
/// `A::NAMES`) and those of `B`.
pub struct TwoQueries<A, B>(pub A, pub B);

/// The parameters that [`TwoQueries`] gives to its first part.
pub trait Named {
    /// Their names.
    const NAMES: &'static [&'static str];
}

impl<A: DeserializeOwned + Named, B: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for TwoQueries<A, B> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let mut split =
            [form_urlencoded::Serializer::new(String::new()), form_urlencoded::Serializer::new(String::new())];
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let [first, second] = &mut split;
            let part = if A::NAMES.contains(&name.as_ref()) { first } else { second };
            part.append_pair(&name, &value);
        }
        let [mut first, mut second] = split;
        Ok(Self(decode_query(&first.finish())?, decode_query(&second.finish())?))
    }
}

/// What the URL's path names. A path that cannot be read names nothing.
pub struct UrlPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for UrlPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let nothing = || Problem::new(StatusCode::NOT_FOUND, "route_unknown");
        // No name holds a NUL, and one of the databases takes none.
        if parts.uri.path().contains("%00") {
            return Err(nothing());
        }
        let Path(value) = Path::<T>::from_request_parts(parts, state).await.map_err(|_| nothing())?;
        Ok(Self(value))
    }
}

fn decode_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name.contains('\0') || value.contains('\0') {
            return Err(Problem::bad_parameter(FieldProblem::new(name.replace('\0', ""), "format")));
        }
    }
    let form = form_urlencoded::parse(query.as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(form))
        .map_err(|error| Problem::bad_parameter(field_problem(error.path(), &error.inner().to_string())))
}

/// Refuses a body that does not say it is JSON.
///
/// # Errors
/// 415.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(kind.as_str(), "application/json" | "application/merge-patch+json") {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"))
}

fn body_problem(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large").with("limit", MAX_BODY.to_string());
    }
    Problem::new(StatusCode::BAD_REQUEST, "request_incomplete")
}

/// Decodes a whole body.
///
/// # Errors
/// 400 when it is no JSON, 422 naming the field when it is not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would take an array for a struct, field by field.
    if bytes.trim_ascii_start().starts_with(b"[") && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
        return Err(Problem::invalid(vec![FieldProblem::new("(body)", "type").saying("expected an object")]));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let inner = error.inner();
        if inner.is_data() {
            // Without " at line 1 column 7", which says nothing about a field.
            let text = inner.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            return Problem::invalid(vec![field_problem(error.path(), text)]);
        }
        not_json(inner)
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_json")
        .with("line", error.line().to_string())
        .with("column", error.column().to_string())
}

/// Serde's sentence as field and rule.
fn field_problem(path: &serde_path_to_error::Path, text: &str) -> FieldProblem {
    let path = path.to_string();
    let named = text.split('`').nth(1).unwrap_or_default();
    let join = |name: &str| match path.as_str() {
        "." | "" | "?" => name.to_owned(),
        // The path of an unknown key ends in that key already.
        whole if whole == name || whole.ends_with(&format!(".{name}")) => whole.to_owned(),
        parent => format!("{}.{name}", parent.trim_end_matches(".?")),
    };
    let whole = if matches!(path.as_str(), "." | "" | "?") { "(body)".to_owned() } else { path.clone() };
    if text.starts_with("unknown field") {
        FieldProblem::new(join(named), "unknown")
    } else if text.starts_with("missing field") {
        FieldProblem::new(join(named), "required")
    } else if text.starts_with("duplicate field") {
        FieldProblem::new(join(named), "duplicate")
    } else if text.starts_with("unknown variant") {
        let allowed = text.split_once("expected ").map_or("", |(_, rest)| rest);
        FieldProblem::new(whole, "one_of").saying(format!("must be {allowed}"))
    } else {
        // "invalid type: string \"…\", expected u64": the value is not repeated,
        // it may be a secret in the wrong field.
        let expected = text.rsplit_once("expected ").map(|(_, rest)| format!("expected {rest}"));
        let problem = FieldProblem::new(whole, "type");
        match expected {
            Some(expected) => problem.saying(expected),
            None => problem,
        }
    }
}

/// For a PATCH field that may be absent, `null` or a value: absent stays
/// `None`, `null` becomes `Some(None)`.
///
/// # Errors
/// As the inner type's.
pub fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// For a PATCH field that may be absent but not `null`.
///
/// # Errors
/// As the inner type's, and for `null`.
pub fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        weight: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Left,
        Right,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Sample {
        name: String,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        choice: Option<Choice>,
        #[serde(default, deserialize_with = "nullable")]
        cleared: Option<Option<u32>>,
        #[serde(default, deserialize_with = "present")]
        given: Option<u32>,
    }

    #[test]
    fn every_wrong_field_is_named_with_its_rule() {
        for (text, status, field, rule) in [
            (r#"{"name":"a","colour":1}"#, 422, "colour", "unknown"),
            (r#"{"name":"a","inner":{"weight":1,"depth":2}}"#, 422, "inner.depth", "unknown"),
            (r"{}", 422, "name", "required"),
            (r#"{"name":"a","inner":{}}"#, 422, "inner.weight", "required"),
            (r#"{"name":5}"#, 422, "name", "type"),
            (r#"{"name":"a","tags":["x",7]}"#, 422, "tags[1]", "type"),
            (r#"{"name":"a","inner":{"weight":-1}}"#, 422, "inner.weight", "type"),
            (r#"{"name":"a","choice":"up"}"#, 422, "choice", "one_of"),
            (r#"{"name":"a","name":"b"}"#, 422, "name", "duplicate"),
            (r#"{"name":"a","given":null}"#, 422, "given", "type"),
            (r#"["a"]"#, 422, "(body)", "type"),
            (r#""text""#, 422, "(body)", "type"),
        ] {
            let problem = decode::<Sample>(text.as_bytes()).expect_err(text);
            assert_eq!(problem.status, status, "{text}");
            let error = problem.errors.first().expect("one field");
            assert_eq!((error.field.as_str(), error.rule.as_str()), (field, rule), "{text}");
        }
        for text in ["", "{", "{\"name\":\"a\"} x", "\u{0}"] {
            assert_eq!(decode::<Sample>(text.as_bytes()).expect_err(text).code, "invalid_json", "{text:?}");
        }
    }

    #[test]
    fn absent_null_and_value_are_told_apart() {
        let absent = decode::<Sample>(br#"{"name":"a"}"#).expect("valid");
        let null = decode::<Sample>(br#"{"name":"a","cleared":null}"#).expect("valid");
        let value = decode::<Sample>(br#"{"name":"a","cleared":3}"#).expect("valid");
        assert_eq!((absent.cleared, null.cleared, value.cleared), (None, Some(None), Some(Some(3))));
    }

    #[test]
    fn a_refused_value_is_not_repeated() {
        let problem = decode::<Sample>(br#"{"name":"a","tags":"sk-canary"}"#).expect_err("wrong type");
        assert!(!format!("{problem:?}").contains("canary"));
    }
}
