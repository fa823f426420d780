//! `clawgate project …`

use super::body::{Body, JsonArg};
use super::client::path;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] = &[("ID", "id"), ("SLUG", "slug"), ("NAME", "name"), ("CREATED", "created_at")];

/// Projects of a tenant
#[derive(clap::Subcommand, Debug)]
pub(crate) enum ProjectVerb {
    /// All projects
    List(ListArgs),
    /// One project
    Get {
        /// Id
        project: String,
    },
    /// A new project
    Create {
        /// Lower-case name
        slug: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Changes a project
    Update {
        /// Id
        project: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Deletes a project that nothing is bound to
    Delete {
        /// Id
        project: String,
    },
}

/// What can be set.
#[derive(clap::Args, Debug)]
pub(crate) struct Fields {
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    json: JsonArg,
}

impl Fields {
    fn body(self) -> Result<Body, Failure> {
        let mut body = Body::from_arg(&self.json)?;
        body.set("name", self.name);
        Ok(body)
    }
}

impl ProjectVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/projects", &[], args.limit).await?, COLUMNS),
            Self::Get { project } => out.object(&api.get(&path(&["projects", &project])?, &[]).await?),
            Self::Create { slug, fields } => {
                let mut body = fields.body()?;
                body.set("slug", slug);
                session.created(api.post("/projects", &body.finish()).await?)
            }
            Self::Update { project, fields } => {
                let body = fields.body()?.for_update()?;
                session.changed(api.patch(&path(&["projects", &project])?, &body).await?)
            }
            Self::Delete { project } => {
                session.deleted(api.delete(&path(&["projects", &project])?).await?, "project", &project)
            }
        }
    }
}
