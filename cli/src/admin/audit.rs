//! `clawgate audit …`

use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] = &[
    ("TIME", "created_at"),
    ("ACTOR", "actor"),
    ("ACTION", "action"),
    ("KIND", "resource_kind"),
    ("RESOURCE", "resource_id"),
];

/// The audit log
#[derive(clap::Subcommand, Debug)]
pub(crate) enum AuditVerb {
    /// Its rows, newest first
    List(ListArgs),
}

impl AuditVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self::List(args) = self;
        session.out.rows(&session.api.list("/audit", &[], args.limit).await?, COLUMNS)
    }
}
