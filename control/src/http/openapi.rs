//! The document at `/openapi.json`, made from the same list as the router.
//!
//! Invariant: an operation is in the document exactly when it is in the router,
//! because both come from one [`Doc`] each. Every object schema is closed.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Map, Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::page::Page;
use super::problem::ProblemBody;

/// What the document says about one operation.
pub struct Doc {
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    request: Option<(String, bool)>,
    answers: Vec<(u16, Option<String>)>,
    texts: Vec<(u16, &'static [&'static str])>,
    schemas: Vec<(String, RefOr<Schema>)>,
    public: bool,
    /// Schema of the answered page, and of its rows.
    page_of: Option<(String, String)>,
}

impl Doc {
    /// `id` is the operation id of generated clients.
    #[must_use]
    pub fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            parameters: Vec::new(),
            request: None,
            answers: Vec::new(),
            texts: Vec::new(),
            schemas: Vec::new(),
            public: false,
            page_of: None,
        }
    }

    /// The operation id.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        self.id
    }

    fn schema<T: ToSchema>(&mut self) -> String {
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), T::schema()));
        T::schemas(&mut self.schemas);
        name
    }

    /// Query parameters.
    #[must_use]
    pub fn query<T: IntoParams>(mut self) -> Self {
        for parameter in T::into_params(|| Some(ParameterIn::Query)) {
            self.parameters.extend(serde_json::to_value(parameter));
        }
        self
    }

    fn header(mut self, name: &str, description: &str) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "header", "required": false,
            "description": description, "schema": {"type": "string"},
        }));
        self
    }

    /// A required JSON body.
    #[must_use]
    pub fn body<T: ToSchema>(mut self) -> Self {
        self.request = Some((self.schema::<T>(), true));
        self
    }

    /// A JSON body that may be left out.
    #[must_use]
    pub fn optional_body<T: ToSchema>(mut self) -> Self {
        self.request = Some((self.schema::<T>(), false));
        self
    }

    /// An answer with a JSON body.
    #[must_use]
    pub fn answers<T: ToSchema>(mut self, status: u16) -> Self {
        let name = self.schema::<T>();
        self.answers.push((status, Some(name)));
        self
    }

    /// A page of a list. Each has a schema of its own, named after its rows:
    /// the generic type has one name for all of them.
    #[must_use]
    pub fn answers_page<T: ToSchema>(mut self) -> Self {
        let row = self.schema::<T>();
        let name = format!("{row}Page");
        self.schemas.push((name.clone(), <Page<T> as PartialSchema>::schema()));
        self.page_of = Some((name.clone(), row));
        self.answers.push((200, Some(name)));
        self
    }

    /// An answer of text, in one of these media types.
    #[must_use]
    pub fn answers_text(mut self, status: u16, kinds: &'static [&'static str]) -> Self {
        self.texts.push((status, kinds));
        self
    }

    /// An answer without a body.
    #[must_use]
    pub fn answers_nothing(mut self, status: u16) -> Self {
        self.answers.push((status, None));
        self
    }

    /// Takes an `Idempotency-Key`.
    #[must_use]
    pub fn creates(self) -> Self {
        self.header("idempotency-key", "A repeat with the same key and body gets the first answer again, for 24 hours.")
    }

    /// Takes `If-Match`.
    #[must_use]
    pub fn updates(self) -> Self {
        self.header("if-match", "The etag that was read; 412 when the resource has changed since.")
    }

    /// Changes what nodes serve: takes `Prefer`.
    #[must_use]
    pub fn reaches_nodes(self) -> Self {
        self.header(
            "prefer",
            "wait=N: up to N seconds (default 2, at most 30) until every connected node has answered; respond-async: do not wait.",
        )
    }

    /// Belongs to one tenant.
    #[must_use]
    pub fn of_tenant(self) -> Self {
        self.header("x-clawgate-tenant", "Slug of the tenant to act for; needed when the token may act for several.")
    }

    /// Answers without a token.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    fn operation(&self, path: &str) -> Value {
        let mut parameters: Vec<Value> = path_parameters(path)
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        parameters.extend(self.parameters.iter().cloned());
        let mut responses = Map::new();
        for (status, schema) in &self.answers {
            let mut answer = json!({"description": if *status == 204 { "Done." } else { "The answer." }});
            if let Some(name) = schema {
                answer["content"] = content("application/json", name);
            }
            responses.insert(status.to_string(), answer);
        }
        for (status, kinds) in &self.texts {
            let media: Map<String, Value> =
                kinds.iter().map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "string"}}))).collect();
            responses.insert(status.to_string(), json!({"description": "The answer.", "content": media}));
        }
        responses.insert(
            "default".into(),
            json!({"description": "A problem.", "content": content("application/problem+json", "Problem")}),
        );
        let tag = path.trim_start_matches("/api/v1/").split('/').next().unwrap_or_default();
        let mut operation = json!({
            "operationId": self.id, "summary": self.summary, "tags": [tag],
            "parameters": parameters, "responses": responses,
        });
        if let Some((name, required)) = &self.request {
            operation["requestBody"] = json!({"required": required, "content": content("application/json", name)});
        }
        if self.public {
            operation["security"] = json!([]);
        }
        operation
    }
}

fn content(kind: &str, schema: &str) -> Value {
    json!({kind: {"schema": reference(schema)}})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// The whole document.
#[must_use]
pub fn document<'a>(
    operations: impl Iterator<Item = (&'a Method, &'a str, &'a Doc)>,
    aliases: &[(&str, &str)],
) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    let mut problem = Doc::new("", "");
    let _ = problem.schema::<ProblemBody>();
    let mut add = |doc: &Doc| {
        for (name, schema) in &doc.schemas {
            if let Ok(mut value) = serde_json::to_value(schema) {
                close(&mut value);
                if let Some((_, row)) = doc.page_of.as_ref().filter(|(page, _)| page == name) {
                    value["properties"]["data"]["items"] = reference(row);
                }
                schemas.insert(name.clone(), value);
            }
        }
    };
    add(&problem);
    let mut tags = BTreeSet::new();
    for (method, path, doc) in operations {
        add(doc);
        let operation = doc.operation(path);
        tags.extend(operation["tags"][0].as_str().map(str::to_owned));
        paths.entry(path).or_default().insert(method.as_str().to_ascii_lowercase(), operation);
    }
    let aliases: Map<String, Value> = aliases.iter().map(|(from, to)| ((*from).to_owned(), json!(to))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Clawgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane's API. Errors are application/problem+json with a stable code.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "tags": tags.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "cga_…"}},
        },
        "x-path-aliases": aliases,
    })
}

/// `additionalProperties: false` wherever properties are listed.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("properties").is_some_and(Value::is_object) && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".into(), Value::Bool(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}
