//! `clawgate tenant …`

use super::body::{Body, JsonArg};
use super::client::path;
use super::limits::LimitsVerb;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] =
    &[("ID", "id"), ("SLUG", "slug"), ("NAME", "name"), ("TIME ZONE", "time_zone"), ("SUSPENDED", "suspended")];

/// Tenants
#[derive(clap::Subcommand, Debug)]
pub(crate) enum TenantVerb {
    /// All tenants
    List(ListArgs),
    /// One tenant
    Get {
        /// Id or slug
        tenant: String,
    },
    /// A new tenant
    Create {
        /// Lower-case name used in URLs and `--tenant`
        slug: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Changes a tenant
    Update {
        /// Id or slug
        tenant: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Rate and concurrency limits of all its bots together
    #[command(subcommand)]
    Limits(LimitsVerb),
    /// Deletes a tenant without bots and keys
    Delete {
        /// Id or slug
        tenant: String,
    },
}

/// What can be set.
#[derive(clap::Args, Debug)]
pub(crate) struct Fields {
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// IANA zone in which days and months are counted
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Refuse every request of its bots
    #[arg(long, value_name = "BOOL")]
    suspended: Option<bool>,
    #[command(flatten)]
    json: JsonArg,
}

impl Fields {
    fn body(self) -> Result<Body, Failure> {
        let mut body = Body::from_arg(&self.json)?;
        body.set("name", self.name).set("time_zone", self.time_zone).set("suspended", self.suspended);
        Ok(body)
    }
}

impl TenantVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/tenants", &[], args.limit).await?, COLUMNS),
            Self::Get { tenant } => out.object(&api.get(&path(&["tenants", &tenant])?, &[]).await?),
            Self::Create { slug, fields } => {
                let mut body = fields.body()?;
                body.set("slug", slug);
                session.created(api.post("/tenants", &body.finish()).await?)
            }
            Self::Update { tenant, fields } => {
                let body = fields.body()?.for_update()?;
                session.changed(api.patch(&path(&["tenants", &tenant])?, &body).await?)
            }
            Self::Limits(verb) => verb.run(session, "tenants").await,
            Self::Delete { tenant } => {
                session.deleted(api.delete(&path(&["tenants", &tenant])?).await?, "tenant", &tenant)
            }
        }
    }
}
