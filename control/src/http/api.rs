//! One list for router and document: an operation enters both or neither.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::body::MAX_BODY;
use super::openapi::{self, Doc};
use super::problem::Problem;
use super::state::App;

/// The list while it is built.
#[derive(Default)]
pub struct Api {
    router: Router<App>,
    operations: Vec<(Method, &'static str, Doc)>,
}

macro_rules! verbs {
    ($($name:ident, $verb:ident;)*) => {$(
        #[doc = concat!("Adds a ", stringify!($verb), " operation.")]
        #[must_use]
        pub fn $name<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Self
        where
            H: Handler<T, App>,
            T: 'static,
        {
            self.add(Method::$verb, MethodFilter::$verb, path, handler, doc)
        }
    )*};
}

impl Api {
    verbs! { get, GET; post, POST; patch, PATCH; put, PUT; delete, DELETE; }

    /// Adds a POST operation that takes a file of at most `limit` bytes.
    #[must_use]
    pub fn post_file<H, T>(mut self, path: &'static str, limit: usize, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let taken = on(MethodFilter::POST, handler).layer(DefaultBodyLimit::max(limit));
        self.router = self.router.route(path, taken);
        self.operations.push((Method::POST, path, doc));
        self
    }

    fn add<H, T>(mut self, method: Method, filter: MethodFilter, path: &'static str, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.router = self.router.route(path, on(filter, handler));
        self.operations.push((method, path, doc));
        self
    }

    /// Method and path of every operation.
    pub fn operations(&self) -> impl Iterator<Item = (&Method, &str)> {
        self.operations.iter().map(|(method, path, _)| (method, *path))
    }

    /// The document.
    #[must_use]
    pub fn document(&self, aliases: &[(&str, &str)]) -> Value {
        openapi::document(self.operations.iter().map(|(method, path, doc)| (method, *path, doc)), aliases)
    }

    /// The router, with pages that are no operations, and with what answers when
    /// no path or no method fits.
    pub fn into_router(self, pages: Router<App>) -> Router<App> {
        // Computed here because the fallback no longer knows the path's list.
        let allowed: Vec<(String, String)> = {
            let mut list: Vec<(String, String)> = Vec::new();
            for (method, path, _) in &self.operations {
                match list.iter_mut().find(|(known, _)| known == path) {
                    Some((_, methods)) => methods.push_str(&format!(", {method}")),
                    None => list.push(((*path).to_owned(), method.to_string())),
                }
            }
            list
        };
        let refuse = move |request: Request| {
            let path = request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned());
            let allow = path
                .and_then(|path| allowed.iter().find(|(known, _)| *known == path).map(|(_, methods)| methods.clone()))
                .and_then(|methods| HeaderValue::from_str(&methods).ok());
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
                .with("method", request.method().as_str());
            // What is not in the list are pages.
            std::future::ready(problem.header(header::ALLOW, allow.unwrap_or(HeaderValue::from_static("GET, HEAD"))))
        };
        // The fallback reaches only the routes that are there when it is set.
        self.router
            .merge(pages)
            .method_not_allowed_fallback(refuse)
            .fallback(|| std::future::ready(Problem::new(StatusCode::NOT_FOUND, "route_unknown")))
            .layer(DefaultBodyLimit::max(MAX_BODY))
    }
}
