//! The few statements that SQLite and PostgreSQL do not share.

use super::db::Engine;

/// How a writing transaction starts. SQLite takes its one write lock at once,
/// so that a transaction never fails in the middle because another one wrote.
pub(super) const fn begin_write(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        Engine::Postgres => "BEGIN",
    }
}

/// How a transaction starts whose reads all see one moment.
pub(super) const fn begin_snapshot(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "BEGIN",
        Engine::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    }
}

/// What each new connection is told.
pub(super) const fn session_setup(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Sqlite => &[
            "PRAGMA busy_timeout = 5000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA foreign_keys = ON",
            "PRAGMA trusted_schema = OFF",
            "PRAGMA temp_store = MEMORY",
            // In KiB: the upper pages of the usage indexes stay in memory.
            "PRAGMA cache_size = -16384",
            // In pages: what ingest writes again and again goes into the
            // database file once for every 16 MiB of log instead of 4.
            "PRAGMA wal_autocheckpoint = 4000",
        ],
        Engine::Postgres => &[
            "SET lock_timeout = '5s'",
            "SET statement_timeout = '30s'",
            "SET idle_in_transaction_session_timeout = '60s'",
            "SET time zone 'UTC'",
        ],
    }
}

/// Makes one migrator wait for another. SQLite's write lock does it there.
pub(super) const fn migration_lock(engine: Engine) -> Option<&'static str> {
    match engine {
        Engine::Sqlite => None,
        Engine::Postgres => Some("SELECT CAST(pg_advisory_xact_lock(7091442001) AS TEXT)"),
    }
}

/// Reads a setting that must not change until the transaction ends. SQLite's
/// write lock does it there.
pub(super) const fn hold_setting(sqlite: bool) -> &'static str {
    if sqlite {
        "SELECT value FROM settings WHERE name = $1"
    } else {
        "SELECT value FROM settings WHERE name = $1 FOR SHARE"
    }
}

/// Excludes folding a day from adding to its hours: adders share the lock, a
/// folder has it alone. SQLite has one writer anyway.
pub(super) const fn fold_lock(sqlite: bool, shared: bool) -> Option<&'static str> {
    match (sqlite, shared) {
        (true, _) => None,
        (false, true) => Some("SELECT CAST(pg_advisory_xact_lock_shared(7091442002) AS TEXT)"),
        (false, false) => Some("SELECT CAST(pg_advisory_xact_lock(7091442002) AS TEXT)"),
    }
}
