//! Schema, engines and transactions.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clawgate_control::store::error::MigrationError;
use clawgate_control::store::{Db, Engine, StoreError, audit, migrate, revisions, settings};

pub async fn migrations_are_forward_only(url: &str) {
    let db = Db::connect(url).await.expect("opens");
    let pending = migrate::pending(&db).await.expect("compares");
    assert!(pending.contains(&"0001_initial".to_owned()));
    let report = migrate::run(&db, None).await.expect("migrates");
    assert_eq!((report.applied, report.backup), (pending, None));
    let again = migrate::run(&db, None).await.expect("nothing to do");
    assert_eq!(again, migrate::Report::default());

    let mut tx = db.begin().await.expect("begins");
    sqlx::query("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (9999, 'future', '', 0)")
        .execute(&mut *tx)
        .await
        .expect("pretends a newer release");
    tx.commit().await.expect("commits");
    let refused = migrate::run(&db, None).await.expect_err("newer schema");
    assert!(matches!(refused, StoreError::Migration(MigrationError::Newer { found: 9999, .. })), "{refused}");

    let mut tx = db.begin().await.expect("begins");
    sqlx::query("DELETE FROM schema_migrations WHERE version = 9999").execute(&mut *tx).await.expect("takes it back");
    sqlx::query("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1")
        .execute(&mut *tx)
        .await
        .expect("edits");
    let refused = migrate_within(&mut tx).await;
    assert_eq!(refused, 1, "the edit is seen inside the transaction");
    tx.rollback().await.expect("rolls back");
    // The rollback took the deletion back too.
    let mut tx = db.begin().await.expect("begins");
    sqlx::query("DELETE FROM schema_migrations WHERE version = 9999").execute(&mut *tx).await.expect("takes it back");
    tx.commit().await.expect("commits");
    assert!(migrate::pending(&db).await.expect("compares").is_empty());
    db.close().await;
}

async fn migrate_within(conn: &mut sqlx::AnyConnection) -> i64 {
    use clawgate_control::store::row::RowExt as _;
    let row = sqlx::query("SELECT COUNT(*) AS n FROM schema_migrations WHERE checksum = 'x'").fetch_one(conn).await;
    row.expect("counts").int("n").expect("number")
}

/// What the driver for both engines must carry: null, the ends of i64, text
/// beyond ASCII, bytes with zeros.
pub async fn values_round_trip(db: &Db) {
    use clawgate_control::store::row::RowExt as _;
    let mut tx = db.begin().await.expect("begins");
    sqlx::query(
        "INSERT INTO api_tokens (id, tenant_id, name, sha256, last4, role, scopes, created_by, expires_at, \
         last_used_at, revoked_at, created_at) VALUES ($1, $2, $3, $4, '', '', '[]', '', $5, $6, $7, $8)",
    )
    .bind("tok_round")
    .bind(None::<String>)
    .bind("Schl\u{fc}ssel \u{5bc6}\u{94a5} \u{1f511}")
    .bind(vec![0_u8, 255, 0, 1])
    .bind(None::<i64>)
    .bind(i64::MAX)
    .bind(i64::MIN)
    .bind(0_i64)
    .execute(&mut *tx)
    .await
    .expect("inserts");
    let row = sqlx::query("SELECT * FROM api_tokens WHERE sha256 = $1")
        .bind(vec![0_u8, 255, 0, 1])
        .fetch_one(&mut *tx)
        .await
        .expect("found by bytes");
    assert_eq!(row.opt_text("tenant_id").expect("null"), None);
    assert_eq!(row.text("name").expect("text"), "Schl\u{fc}ssel \u{5bc6}\u{94a5} \u{1f511}");
    assert_eq!(row.bytes("sha256").expect("bytes"), [0, 255, 0, 1]);
    assert_eq!(row.opt_int("expires_at").expect("null"), None);
    assert_eq!((row.int("last_used_at").expect("max"), row.int("revoked_at").expect("min")), (i64::MAX, i64::MIN));
    assert!(matches!(row.text("expires_at"), Err(StoreError::Corrupt { .. })), "null is no text");
    assert!(row.text("no_such_column").is_err());
    tx.rollback().await.expect("rolls back");

    let mut conn = db.read().await.expect("reads");
    let before = revisions::current(&mut conn).await.expect("revision");
    drop(conn);
    let mut tx = db.begin().await.expect("begins");
    assert_eq!(revisions::bump(&mut tx).await.expect("bumps").revision, before.revision + 1);
    let next = revisions::next_generation(&mut tx).await.expect("bumps").generation;
    assert!(next > before.generation && next > 1_700_000_000, "{next}: a backup from before it gets another one");
    assert_eq!(revisions::next_generation(&mut tx).await.expect("bumps").generation, next + 1);
    assert!(settings::insert(&mut tx, "test", "1").await.expect("inserts"));
    assert!(!settings::insert(&mut tx, "test", "2").await.expect("keeps"));
    settings::set(&mut tx, "test", "3").await.expect("sets");
    assert_eq!(settings::get(&mut tx, "test").await.expect("gets").as_deref(), Some("3"));
    drop(tx);
    let mut conn = db.read().await.expect("reads");
    assert_eq!(revisions::current(&mut conn).await.expect("revision"), before, "a dropped transaction is undone");
    assert_eq!(settings::get(&mut conn, "test").await.expect("gets"), None);
}

/// Revisions come out in order and none is lost, however many write at once; a
/// snapshot sees one moment.
pub async fn writers_wait_for_each_other(db: &Db) {
    let mut snapshot = db.snapshot().await.expect("snapshot");
    let before = revisions::current(&mut snapshot).await.expect("revision");
    let writers = (0..16).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut tx = db.begin().await?;
            audit::lock(&mut tx).await?;
            let revision = revisions::bump(&mut tx).await?.revision;
            tx.commit().await?;
            Ok::<_, StoreError>(revision)
        })
    });
    let mut revisions_seen = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        revisions_seen.push(writer.await.expect("runs").expect("writes"));
    }
    revisions_seen.sort_unstable();
    let wanted: Vec<u64> = (before.revision + 1..=before.revision + 16).collect();
    assert_eq!(revisions_seen, wanted);
    assert_eq!(revisions::current(&mut snapshot).await.expect("revision"), before, "the snapshot did not move");
    snapshot.rollback().await.expect("ends");
    db.ping().await.expect("answers");
}

pub async fn sqlite_file(dir: &Path) {
    let path = dir.join("c.db");
    let url = format!("sqlite://{}", path.display());
    let db = Db::connect(&url).await.expect("opens");
    assert_eq!((db.engine(), db.file()), (Engine::Sqlite, Some(path.as_path())));
    migrate::run(&db, Some(&dir.join("backups"))).await.expect("migrates");
    assert!(!dir.join("backups").exists(), "a new file needs no copy");
    for file in ["c.db", "c.db-wal", "c.db-shm"] {
        let mode = std::fs::metadata(dir.join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is readable by others");
    }
    // An older schema: the ledger knows of a step before this build's last one.
    let mut tx = db.begin().await.expect("begins");
    sqlx::query("DELETE FROM schema_migrations").execute(&mut *tx).await.expect("forgets");
    tx.commit().await.expect("commits");
    let failed = migrate::run(&db, Some(&dir.join("backups"))).await;
    assert!(failed.is_err(), "tables exist already: nothing was half applied");
    assert_eq!(migrate::pending(&db).await.expect("compares").first().map(String::as_str), Some("0001_initial"));
    db.close().await;
}

pub async fn sqlite_locked(dir: &Path) {
    let url = format!("sqlite://{}", dir.join("c.db").display());
    let db = Db::connect(&url).await.expect("opens");
    migrate::run(&db, None).await.expect("migrates");
    let other = Db::connect(&url).await.expect("a second process");
    let holder = other.begin().await.expect("holds the write lock");
    let refused = db.begin().await.err().expect("locked");
    assert!(matches!(refused, StoreError::Busy), "{refused}");
    assert!(refused.is_transient());
    holder.rollback().await.expect("lets go");
    db.begin().await.expect("free again").commit().await.expect("commits");
}
