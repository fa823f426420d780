//! Brings a database to the schema of this build. Forward only: going back is
//! restoring the copy that was made before.

use std::path::{Path, PathBuf};

use clawgate_shared::clock;
use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;

use super::db::{Db, Engine};
use super::error::{MigrationError, StoreError};
use super::row::RowExt as _;
use super::{dialect, usage_convert};

/// One step; number and name are the same for both engines.
struct Migration {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

/// The step after which events are carried over by `usage_convert`.
const USAGE_DIMS: i64 = 4;

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "initial",
        sqlite: include_str!("../../../migrations/sqlite/0001_initial.sql"),
        postgres: include_str!("../../../migrations/postgres/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "prices",
        sqlite: include_str!("../../../migrations/sqlite/0002_prices.sql"),
        postgres: include_str!("../../../migrations/postgres/0002_prices.sql"),
    },
    Migration {
        version: 3,
        name: "quotas",
        sqlite: include_str!("../../../migrations/sqlite/0003_quotas.sql"),
        postgres: include_str!("../../../migrations/postgres/0003_quotas.sql"),
    },
    Migration {
        version: USAGE_DIMS,
        name: "usage_dims",
        sqlite: include_str!("../../../migrations/sqlite/0004_usage_dims.sql"),
        postgres: include_str!("../../../migrations/postgres/0004_usage_dims.sql"),
    },
    Migration {
        version: 5,
        name: "tenant_limits",
        sqlite: include_str!("../../../migrations/sqlite/0005_tenant_limits.sql"),
        postgres: include_str!("../../../migrations/postgres/0005_tenant_limits.sql"),
    },
    Migration {
        version: 6,
        name: "folding",
        sqlite: include_str!("../../../migrations/sqlite/0006_folding.sql"),
        postgres: include_str!("../../../migrations/postgres/0006_folding.sql"),
    },
    Migration {
        version: 7,
        name: "account_ids",
        sqlite: include_str!("../../../migrations/sqlite/0007_account_ids.sql"),
        postgres: include_str!("../../../migrations/postgres/0007_account_ids.sql"),
    },
    Migration {
        version: 8,
        name: "usage_sessions",
        sqlite: include_str!("../../../migrations/sqlite/0008_usage_sessions.sql"),
        postgres: include_str!("../../../migrations/postgres/0008_usage_sessions.sql"),
    },
    Migration {
        version: 9,
        name: "bot_containers",
        sqlite: include_str!("../../../migrations/sqlite/0009_bot_containers.sql"),
        postgres: include_str!("../../../migrations/postgres/0009_bot_containers.sql"),
    },
];

const CREATE_LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, \
    name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)";
const SELECT_APPLIED: &str = "SELECT version, checksum FROM schema_migrations ORDER BY version";
const INSERT_APPLIED: &str =
    "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)";
const BACKUP: &str = "VACUUM INTO $1";

/// What [`run`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the applied steps (`0001_initial`), in order.
    pub applied: Vec<String>,
    /// The copy that was made first; only for a SQLite file that had a schema.
    pub backup: Option<PathBuf>,
}

impl Migration {
    fn sql(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Sqlite => self.sqlite,
            Engine::Postgres => self.postgres,
        }
    }

    fn checksum(&self, engine: Engine) -> String {
        Sha256::digest(self.sql(engine)).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn full_name(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }
}

/// Names of the steps that [`run`] would apply now.
///
/// # Errors
/// The database is newer or other than this build.
pub async fn pending(db: &Db) -> Result<Vec<String>, StoreError> {
    let mut tx = db.begin().await?;
    sqlx::query(CREATE_LEDGER).execute(&mut *tx).await?;
    let (_, pending) = compare(&mut tx, db.engine()).await?;
    tx.commit().await?;
    Ok(pending.iter().map(|migration| migration.full_name()).collect())
}

/// Applies what is missing, each step in its own transaction. Before that, a
/// SQLite database that already has a schema is copied to `backup_dir`.
///
/// # Errors
/// The database is newer or other than this build, the copy failed, or a step
/// failed; the steps before it stay applied.
pub async fn run(db: &Db, backup_dir: Option<&Path>) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let mut tx = db.begin().await?;
    sqlx::query(CREATE_LEDGER).execute(&mut *tx).await?;
    let (applied, missing) = compare(&mut tx, db.engine()).await?;
    tx.commit().await?;
    if let (Some(first), true, Some(dir)) = (missing.first(), applied > 0, backup_dir) {
        report.backup = back_up(db, dir, first.version).await?;
    }
    for migration in missing {
        if apply(db, migration).await? {
            report.applied.push(migration.full_name());
        }
    }
    Ok(report)
}

/// Highest applied number (0: none) and what is missing.
async fn compare(conn: &mut AnyConnection, engine: Engine) -> Result<(i64, Vec<&'static Migration>), StoreError> {
    let mut found = Vec::new();
    for row in sqlx::query(SELECT_APPLIED).fetch_all(conn).await? {
        found.push((row.int("version")?, row.text("checksum")?));
    }
    let highest = found.last().map_or(0, |(version, _)| *version);
    let known = MIGRATIONS.last().map_or(0, |migration| migration.version);
    if highest > known {
        return Err(MigrationError::Newer { found: highest, known }.into());
    }
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        let version = migration.version;
        match found.iter().find(|(number, _)| *number == version) {
            Some((_, checksum)) if *checksum != migration.checksum(engine) => {
                return Err(MigrationError::Changed { version }.into());
            }
            Some(_) => {}
            None if version < highest => return Err(MigrationError::Gap { version }.into()),
            None => missing.push(migration),
        }
    }
    Ok((highest, missing))
}

/// False when another process applied it meanwhile.
async fn apply(db: &Db, migration: &'static Migration) -> Result<bool, StoreError> {
    let engine = db.engine();
    let mut tx = db.begin().await?;
    if let Some(lock) = dialect::migration_lock(engine) {
        sqlx::query(lock).fetch_one(&mut *tx).await?;
    }
    let (highest, _) = compare(&mut tx, engine).await?;
    if highest >= migration.version {
        return Ok(false);
    }
    sqlx::raw_sql(migration.sql(engine)).execute(&mut *tx).await?;
    if migration.version == USAGE_DIMS {
        usage_convert::run(&mut tx, clock::now_micros()).await?;
    }
    sqlx::query(INSERT_APPLIED)
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.checksum(engine))
        .bind(clock::now_micros())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

async fn back_up(db: &Db, dir: &Path, version: i64) -> Result<Option<PathBuf>, StoreError> {
    if db.engine() != Engine::Sqlite {
        return Ok(None);
    }
    let failed = |reason: String| StoreError::Migration(MigrationError::Backup(reason));
    std::fs::create_dir_all(dir).map_err(|error| failed(error.to_string()))?;
    let path = dir.join(format!("before-{version:04}-{}.db", clock::now_micros()));
    let text = path.to_str().ok_or_else(|| failed("the path is not UTF-8".into()))?;
    let mut conn = db.writer().await?;
    sqlx::query(BACKUP).bind(text).execute(&mut *conn).await.map_err(|error| failed(error.to_string()))?;
    restrict(&path).map_err(|error| failed(error.to_string()))?;
    Ok(Some(path))
}

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gap_free_from_one() {
        for (at, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.version, at, "{}", migration.name);
        }
    }

    #[tokio::test]
    async fn the_copy_before_migrating_is_whole_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("directory");
        let db = Db::connect(&format!("sqlite://{}", dir.path().join("c.db").display())).await.expect("opens");
        run(&db, None).await.expect("migrates");
        let copy = back_up(&db, &dir.path().join("backups"), 2).await.expect("copies").expect("a file");
        let mode = std::fs::metadata(&copy).expect("copy").permissions().mode();
        assert_eq!(mode & 0o077, 0);
        let restored = Db::connect(&format!("sqlite://{}", copy.display())).await.expect("opens the copy");
        assert!(pending(&restored).await.expect("compares").is_empty());
    }
}
