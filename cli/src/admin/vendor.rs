//! `clawgate vendor …`

use super::body::{Body, JsonArg};
use super::client::path;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] =
    &[("SLUG", "slug"), ("TITLE", "title"), ("BASE URL", "base_url"), ("AUTH", "auth"), ("DIALECT", "dialect")];

/// Vendors: the catalogue and the tenant's own
#[derive(clap::Subcommand, Debug)]
pub(crate) enum VendorVerb {
    /// The catalogue and the tenant's own vendors
    List(ListArgs),
    /// One vendor
    Get {
        /// Id or slug
        vendor: String,
    },
    /// A vendor of the tenant's own
    Create {
        /// The path segment: `/v1/SLUG/…`
        slug: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Changes a vendor of the tenant's own
    Update {
        /// Id or slug
        vendor: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Deletes a vendor of the tenant's own
    Delete {
        /// Id or slug
        vendor: String,
    },
}

/// What can be set.
#[derive(clap::Args, Debug)]
pub(crate) struct Fields {
    /// Name for people
    #[arg(long)]
    title: Option<String>,
    /// Where its API lives, version included
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// How a key is presented: bearer, x-api-key, x-goog-api-key, api-key, query:NAME, none
    #[arg(long, value_name = "FORM")]
    auth: Option<String>,
    /// Whose error shape it has: openai, anthropic, gemini
    #[arg(long)]
    dialect: Option<String>,
    /// Whether usage is asked for in streams: inject, never, passthrough
    #[arg(long, value_name = "MODE")]
    include_usage: Option<String>,
    /// A path that may be called; repeat it
    #[arg(long = "route", value_name = "PATH")]
    routes: Vec<String>,
    #[command(flatten)]
    json: JsonArg,
}

impl Fields {
    fn body(self) -> Result<Body, Failure> {
        let mut body = Body::from_arg(&self.json)?;
        body.set("title", self.title)
            .set("base_url", self.base_url)
            .set("auth", self.auth)
            .set("dialect", self.dialect)
            .set("include_usage", self.include_usage)
            .list("routes", self.routes);
        Ok(body)
    }
}

impl VendorVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/vendors", &[], args.limit).await?, COLUMNS),
            Self::Get { vendor } => out.object(&api.get(&path(&["vendors", &vendor])?, &[]).await?),
            Self::Create { slug, fields } => {
                let mut body = fields.body()?;
                body.set("slug", slug);
                session.created(api.post("/vendors", &body.finish()).await?)
            }
            Self::Update { vendor, fields } => {
                let body = fields.body()?.for_update()?;
                session.changed(api.patch(&path(&["vendors", &vendor])?, &body).await?)
            }
            Self::Delete { vendor } => {
                session.deleted(api.delete(&path(&["vendors", &vendor])?).await?, "vendor", &vendor)
            }
        }
    }
}
