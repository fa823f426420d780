//! What can go wrong below a statement, as a closed set.

use std::fmt;

/// A unique rule of the schema that a write broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// Tenant slug.
    TenantSlug,
    /// Project slug within its tenant.
    ProjectSlug,
    /// Slug of a tenant's own vendor.
    VendorSlug,
    /// Provider key label within tenant and vendor.
    ProviderKeyLabel,
    /// Bot hostname within its tenant.
    BotHostname,
    /// Hash of a bot, API or enrolment token: never by chance.
    TokenHash,
    /// A bot's block of the pool of networks.
    Subnet,
    /// `(principal, idempotency key)`.
    IdempotencyKey,
    /// Any other unique rule or primary key.
    Other,
}

/// What each engine calls a unique rule: PostgreSQL by name, SQLite by columns.
const UNIQUE_RULES: &[(&str, &str, Constraint)] = &[
    ("tenants_slug_key", "tenants.slug", Constraint::TenantSlug),
    ("projects_slug_key", "projects.tenant_id, projects.slug", Constraint::ProjectSlug),
    ("vendors_slug_key", "vendors.tenant_id, vendors.slug", Constraint::VendorSlug),
    (
        "provider_keys_label_key",
        "provider_keys.tenant_id, provider_keys.vendor, provider_keys.label",
        Constraint::ProviderKeyLabel,
    ),
    ("bots_hostname_key", "bots.tenant_id, bots.hostname", Constraint::BotHostname),
    ("bot_tokens_sha256_key", "bot_tokens.sha256", Constraint::TokenHash),
    ("api_tokens_sha256_key", "api_tokens.sha256", Constraint::TokenHash),
    ("enroll_tokens_sha256_key", "enroll_tokens.sha256", Constraint::TokenHash),
    ("bot_containers_subnet_key", "bot_containers.subnet", Constraint::Subnet),
    (
        "idempotency_keys_pkey",
        "idempotency_keys.principal, idempotency_keys.idempotency_key",
        Constraint::IdempotencyKey,
    ),
];

/// Why a statement failed. `Display` is for logs; it never holds row values.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique rule.
    #[error("unique rule broken: {0:?}")]
    Conflict(Constraint),
    /// A foreign key: what is named does not exist, or what is deleted is used.
    #[error("foreign key broken")]
    Reference,
    /// Locked, deadlocked or out of connections; the same call may succeed later.
    #[error("database busy")]
    Busy,
    /// Not reachable, read-only, full or gone.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// A stored value that this build cannot read.
    #[error("column {column} holds a value that cannot be read: {reason}")]
    Corrupt {
        /// Column name.
        column: String,
        /// Kind of damage, without the value.
        reason: String,
    },
    /// The schema cannot be brought to what this build needs.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A mistake of ours: wrong SQL, wrong types.
    #[error("statement failed: {0}")]
    Internal(String),
}

/// Why the schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrationError {
    /// A newer release has been here.
    #[error("the database has schema {found}, this release knows up to {known}; use the newer release or restore")]
    Newer {
        /// Highest applied number.
        found: i64,
        /// Highest number in this build.
        known: i64,
    },
    /// A migration that was applied is not the one in this build.
    #[error("migration {version} was applied with another content than this release has")]
    Changed {
        /// Its number.
        version: i64,
    },
    /// A number below the highest applied one is missing.
    #[error("migration {version} is missing from the database although a later one was applied")]
    Gap {
        /// The missing number.
        version: i64,
    },
    /// The copy before migrating could not be written.
    #[error("the backup before migrating failed: {0}")]
    Backup(String),
}

impl StoreError {
    /// A stored value that cannot be read.
    pub fn corrupt(column: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Corrupt { column: column.into(), reason: reason.to_string() }
    }

    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => from_database(error.as_ref()),
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Configuration(_) => Self::Unavailable(error.to_string()),
            sqlx::Error::ColumnDecode { index, source } => Self::corrupt(index, source),
            other => Self::Internal(other.to_string()),
        }
    }
}

fn from_database(error: &(dyn sqlx::error::DatabaseError + 'static)) -> StoreError {
    if error.is_unique_violation() {
        return StoreError::Conflict(unique_rule(error.constraint(), error.message()));
    }
    if error.is_foreign_key_violation() {
        return StoreError::Reference;
    }
    let code = error.code().unwrap_or_default();
    match code.as_ref() {
        // SQLite's extended codes: BUSY, LOCKED and their kin.
        "5" | "6" | "261" | "262" | "517" | "518" | "773" => return StoreError::Busy,
        // PostgreSQL: serialization, deadlock, lock not available, cancelled,
        // too many connections.
        "40001" | "40P01" | "55P03" | "57014" | "53300" => return StoreError::Busy,
        _ => {}
    }
    // SQLite: PERM, READONLY, IOERR, FULL, CANTOPEN, NOTADB, CORRUPT.
    let primary = code.parse::<u32>().ok().filter(|n| *n < 10_000).map(|n| n & 0xff);
    let sqlite_gone = code.len() < 5 && matches!(primary, Some(3 | 8 | 10 | 11 | 13 | 14 | 26));
    // PostgreSQL classes: connection, resources, operator, authorization, no database, read-only.
    let postgres_gone = code.len() == 5
        && (["08", "53", "57", "58", "28", "3D"].iter().any(|class| code.starts_with(class)) || code == "25006");
    if sqlite_gone || postgres_gone {
        return StoreError::Unavailable(error.message().to_owned());
    }
    StoreError::Internal(format!("{}: {}", code, error.message()))
}

fn unique_rule(name: Option<&str>, message: &str) -> Constraint {
    let columns = message.rsplit(": ").next().unwrap_or_default();
    UNIQUE_RULES
        .iter()
        .find(|(rule, sqlite, _)| Some(*rule) == name || *sqlite == columns)
        .map_or(Constraint::Other, |(_, _, constraint)| *constraint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_name_the_same_rule() {
        assert_eq!(unique_rule(Some("bots_hostname_key"), "duplicate key value"), Constraint::BotHostname);
        let message = "UNIQUE constraint failed: bots.tenant_id, bots.hostname";
        assert_eq!(unique_rule(None, message), Constraint::BotHostname);
        assert_eq!(unique_rule(None, "UNIQUE constraint failed: nodes.id"), Constraint::Other);
    }
}
