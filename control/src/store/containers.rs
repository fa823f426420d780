//! Containers of bots: what is wanted, and what was last observed.
//!
//! Two writers that do not hinder each other: the wanted half is written with
//! the bot, under the lock of all configuration writes; the observed half by
//! whoever hears the bot's runner, which moves no version.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch::{self, Statement};
use super::row::{RowExt as _, to_int};
use super::types::{BotStatus, Health, Reason};
use super::usage_ingest::{Statements, query};

macro_rules! columns {
    () => {
        "bot_id, generation, run, runner_id, subnet, cpu_millis, memory_mb, pids_limit, disk_mb, token_id, \
         sealed_token, sealed_gateway_token, restart_of, killed, status, reason_code, reason, status_since, \
         container_id, image_digest, started_at, exit_code, oom, restart_count, health, health_at, observed_at, \
         failures, retry_at"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO bot_containers (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
     $23, $24, $25, $26, $27, $28, $29)"
);
const WANT: &str = "UPDATE bot_containers SET generation = $2, run = $3, cpu_millis = $4, memory_mb = $5, \
    pids_limit = $6, disk_mb = $7, token_id = $8, sealed_token = $9, sealed_gateway_token = $10, restart_of = $11, \
    killed = $12, failures = $13, retry_at = $14 WHERE bot_id = $1";
const OBSERVE: &str = "UPDATE bot_containers SET status = $2, reason_code = $3, reason = $4, status_since = $5, \
    container_id = $6, image_digest = $7, started_at = $8, exit_code = $9, oom = $10, restart_count = $11, \
    health = $12, health_at = $13, observed_at = $14, failures = $15, retry_at = $16 WHERE bot_id = $1 \
    AND failures = $17 AND COALESCE(retry_at, 0) = $18";
const PLACE: &str = "UPDATE bot_containers SET runner_id = $2 WHERE bot_id = $1 AND runner_id IS NULL";
const DISPLACE: &str = "UPDATE bot_containers SET runner_id = NULL, failures = 0, retry_at = NULL WHERE bot_id = $1";
const TRY_NOW: &str = "UPDATE bot_containers SET failures = 0, retry_at = NULL WHERE bot_id = $1";
const SELECT: &str = concat!("SELECT ", columns!(), " FROM bot_containers WHERE bot_id = $1");
const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM bot_containers ORDER BY bot_id");
const SUBNETS: &str = "SELECT subnet FROM bot_containers UNION ALL SELECT subnet FROM bot_remains ORDER BY subnet";
const TAKEN: &str = "SELECT COUNT(*) AS n, CAST(COALESCE(SUM(c.cpu_millis), 0) AS BIGINT) AS cpu_millis, \
    CAST(COALESCE(SUM(c.memory_mb), 0) AS BIGINT) AS memory_mb, CAST(COALESCE(SUM(c.disk_mb), 0) AS BIGINT) AS disk_mb \
    FROM bots b LEFT JOIN bot_containers c ON c.bot_id = b.id WHERE b.tenant_id = $1";
const ADD_REMAINS: &str = "INSERT INTO bot_remains (bot_id, tenant_id, hostname, runner_id, subnet, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6)";
const SELECT_REMAINS: &str =
    "SELECT bot_id, tenant_id, hostname, runner_id, subnet, created_at FROM bot_remains ORDER BY bot_id";
const DELETE_REMAINS: &str = "DELETE FROM bot_remains WHERE bot_id = $1";

static SELECT_OF: LazyLock<Statements> =
    LazyLock::new(|| Statements::new(concat!("SELECT ", columns!(), " FROM bot_containers WHERE bot_id IN ("), 1, ")"));

/// One bot's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRow {
    /// Its bot.
    pub bot_id: String,
    /// Moves with everything that a container is made of.
    pub generation: u64,
    /// JSON; see `runtime::spec`.
    pub run: String,
    /// Where it lives; `None`: not placed yet.
    pub runner_id: Option<String>,
    /// Block of the bots' pool.
    pub subnet: u32,
    /// What it may take.
    pub size: Size,
    /// The bot token that is inside.
    pub token_id: String,
    /// Its text, sealed.
    pub sealed_token: Vec<u8>,
    /// What people present to the bot's own door, sealed.
    pub sealed_gateway_token: Vec<u8>,
    /// The start that a restart is to end; empty: none is asked for.
    pub restart_of: String,
    /// It is to end without being asked.
    pub killed: bool,
    /// As last seen.
    pub seen: Seen,
}

/// What a container may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// MiB.
    pub memory_mb: u64,
    /// Processes and threads.
    pub pids_limit: u64,
    /// MiB; 0: as the runner has it.
    pub disk_mb: u64,
}

/// What is observed of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Derived from everything else here.
    pub status: BotStatus,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for people.
    pub text: String,
    /// Unix microseconds.
    pub since: i64,
    /// The engine's id; empty: there is none.
    pub container_id: String,
    /// What its image was resolved to.
    pub image_digest: String,
    /// The engine's own text: a name for this start.
    pub started_at: String,
    /// Of the last end.
    pub exit_code: Option<i64>,
    /// It ended for want of memory.
    pub oom: bool,
    /// Starts after the first, of this container.
    pub restart_count: u64,
    /// By its probe.
    pub health: Health,
    /// When that was asked, unix microseconds.
    pub health_at: Option<i64>,
    /// When a runner spoke of it, unix microseconds.
    pub observed_at: Option<i64>,
    /// Failures in a row.
    pub failures: u32,
    /// Not tried again before, unix microseconds.
    pub retry_at: Option<i64>,
}

/// What is to be taken away of a deleted bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemainsRow {
    /// The bot that was.
    pub bot_id: String,
    /// Its owner.
    pub tenant_id: String,
    /// What it was called.
    pub hostname: String,
    /// Who has it.
    pub runner_id: String,
    /// Its block of the pool.
    pub subnet: u32,
    /// Unix microseconds.
    pub created_at: i64,
}

/// What the bots of a tenant take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bots, external ones too.
    pub bots: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// MiB.
    pub memory_mb: u64,
    /// MiB.
    pub disk_mb: u64,
}

fn narrow(row: &AnyRow, column: &str) -> Result<u32, StoreError> {
    u32::try_from(row.uint(column)?).map_err(|_| StoreError::corrupt(column, "too large"))
}

fn read(row: &AnyRow) -> Result<ContainerRow, StoreError> {
    Ok(ContainerRow {
        bot_id: row.text("bot_id")?,
        generation: row.uint("generation")?,
        run: row.text("run")?,
        runner_id: row.opt_text("runner_id")?,
        subnet: narrow(row, "subnet")?,
        size: Size {
            cpu_millis: row.uint("cpu_millis")?,
            memory_mb: row.uint("memory_mb")?,
            pids_limit: row.uint("pids_limit")?,
            disk_mb: row.uint("disk_mb")?,
        },
        token_id: row.text("token_id")?,
        sealed_token: row.bytes("sealed_token")?,
        sealed_gateway_token: row.bytes("sealed_gateway_token")?,
        restart_of: row.text("restart_of")?,
        killed: row.flag("killed")?,
        seen: Seen {
            status: BotStatus::from_column("status", &row.text("status")?)?,
            reason: Reason::from_column("reason_code", &row.text("reason_code")?)?,
            text: row.text("reason")?,
            since: row.int("status_since")?,
            container_id: row.text("container_id")?,
            image_digest: row.text("image_digest")?,
            started_at: row.text("started_at")?,
            exit_code: row.opt_int("exit_code")?,
            oom: row.flag("oom")?,
            restart_count: row.uint("restart_count")?,
            health: Health::from_column("health", &row.text("health")?)?,
            health_at: row.opt_int("health_at")?,
            observed_at: row.opt_int("observed_at")?,
            failures: narrow(row, "failures")?,
            retry_at: row.opt_int("retry_at")?,
        },
    })
}

/// Adds the container of a bot.
///
/// # Errors
/// `Conflict(Subnet)` when the block is taken.
pub async fn insert(conn: &mut AnyConnection, row: &ContainerRow) -> Result<(), StoreError> {
    let statement = sqlx::query(INSERT)
        .bind(row.bot_id.clone())
        .bind(to_int(row.generation))
        .bind(row.run.clone())
        .bind(row.runner_id.clone())
        .bind(i64::from(row.subnet))
        .bind(to_int(row.size.cpu_millis))
        .bind(to_int(row.size.memory_mb))
        .bind(to_int(row.size.pids_limit))
        .bind(to_int(row.size.disk_mb))
        .bind(row.token_id.clone())
        .bind(row.sealed_token.clone())
        .bind(row.sealed_gateway_token.clone())
        .bind(row.restart_of.clone())
        .bind(i64::from(row.killed));
    bind_seen(statement, &row.seen).execute(conn).await?;
    Ok(())
}

fn bind_seen<'q>(statement: Statement<'q>, seen: &Seen) -> Statement<'q> {
    statement
        .bind(seen.status.as_str())
        .bind(seen.reason.as_str())
        .bind(seen.text.clone())
        .bind(seen.since)
        .bind(seen.container_id.clone())
        .bind(seen.image_digest.clone())
        .bind(seen.started_at.clone())
        .bind(seen.exit_code)
        .bind(i64::from(seen.oom))
        .bind(to_int(seen.restart_count))
        .bind(seen.health.as_str())
        .bind(seen.health_at)
        .bind(seen.observed_at)
        .bind(i64::from(seen.failures))
        .bind(seen.retry_at)
}

/// Writes what is wanted. What failed before says nothing about what is wanted
/// now: failures and the time of the next try are written too.
///
/// # Errors
/// As the statement; so for all functions below.
pub async fn want(conn: &mut AnyConnection, row: &ContainerRow) -> Result<bool, StoreError> {
    let statement = sqlx::query(WANT)
        .bind(row.bot_id.clone())
        .bind(to_int(row.generation))
        .bind(row.run.clone())
        .bind(to_int(row.size.cpu_millis))
        .bind(to_int(row.size.memory_mb))
        .bind(to_int(row.size.pids_limit))
        .bind(to_int(row.size.disk_mb))
        .bind(row.token_id.clone())
        .bind(row.sealed_token.clone())
        .bind(row.sealed_gateway_token.clone())
        .bind(row.restart_of.clone())
        .bind(i64::from(row.killed))
        .bind(i64::from(row.seen.failures))
        .bind(row.seen.retry_at);
    fetch::changed(conn, statement).await
}

/// Writes what was observed; false when what is wanted was written since
/// `before` was read, or the bot is gone.
///
/// # Errors
/// See [`want`].
pub async fn observe(conn: &mut AnyConnection, bot_id: &str, before: &Seen, seen: &Seen) -> Result<bool, StoreError> {
    let statement = bind_seen(sqlx::query(OBSERVE).bind(bot_id.to_owned()), seen)
        .bind(i64::from(before.failures))
        .bind(before.retry_at.unwrap_or_default());
    fetch::changed(conn, statement).await
}

/// Says where it lives; false when that was said before.
///
/// # Errors
/// See [`want`].
pub async fn place(conn: &mut AnyConnection, bot_id: &str, runner_id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(PLACE).bind(bot_id.to_owned()).bind(runner_id.to_owned())).await
}

/// It is to be placed anew.
///
/// # Errors
/// See [`want`].
pub async fn displace(conn: &mut AnyConnection, bot_id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DISPLACE).bind(bot_id.to_owned())).await
}

/// What failed before is no reason to wait.
///
/// # Errors
/// See [`want`].
pub async fn try_now(conn: &mut AnyConnection, bot_id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(TRY_NOW).bind(bot_id.to_owned())).await
}

/// A bot's container, when we run it.
///
/// # Errors
/// See [`want`].
pub async fn get(conn: &mut AnyConnection, bot_id: &str) -> Result<Option<ContainerRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT).bind(bot_id.to_owned()), read).await
}

/// The containers of these bots, by bot.
///
/// # Errors
/// See [`want`].
pub async fn of_bots(conn: &mut AnyConnection, ids: &[&str]) -> Result<HashMap<String, ContainerRow>, StoreError> {
    let mut found = HashMap::new();
    for (sql, run) in SELECT_OF.runs(conn, ids) {
        let statement: Statement<'_> = run.iter().fold(query(sql), |query, id| query.bind((*id).to_owned()));
        for row in fetch::all(conn, statement, read).await? {
            found.insert(row.bot_id.clone(), row);
        }
    }
    Ok(found)
}

/// Every container of every bot, by bot.
///
/// # Errors
/// See [`want`].
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<ContainerRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), read).await
}

/// The lowest block of the pool that nobody has, of `blocks`; `None`: all are
/// taken. Callers hold the lock of configuration writes.
///
/// # Errors
/// See [`want`].
pub async fn free_subnet(conn: &mut AnyConnection, blocks: u32) -> Result<Option<u32>, StoreError> {
    let taken = fetch::all(conn, sqlx::query(SUBNETS), |row| narrow(row, "subnet")).await?;
    let mut free = 0;
    for block in taken {
        if block > free {
            break;
        }
        free = free.max(block.saturating_add(1));
    }
    Ok((free < blocks).then_some(free))
}

/// What a tenant's bots take together.
///
/// # Errors
/// See [`want`].
pub async fn taken(conn: &mut AnyConnection, tenant_id: &str) -> Result<Taken, StoreError> {
    let found = fetch::one(conn, sqlx::query(TAKEN).bind(tenant_id.to_owned()), |row| {
        Ok(Taken {
            bots: row.uint("n")?,
            cpu_millis: row.uint("cpu_millis")?,
            memory_mb: row.uint("memory_mb")?,
            disk_mb: row.uint("disk_mb")?,
        })
    });
    Ok(found.await?.unwrap_or_default())
}

/// Remembers what is left of a bot that is deleted in the same transaction.
///
/// # Errors
/// See [`want`].
pub async fn add_remains(conn: &mut AnyConnection, row: &RemainsRow) -> Result<(), StoreError> {
    sqlx::query(ADD_REMAINS)
        .bind(row.bot_id.clone())
        .bind(row.tenant_id.clone())
        .bind(row.hostname.clone())
        .bind(row.runner_id.clone())
        .bind(i64::from(row.subnet))
        .bind(row.created_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Everything that is left of deleted bots.
///
/// # Errors
/// See [`want`].
pub async fn remains(conn: &mut AnyConnection) -> Result<Vec<RemainsRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_REMAINS), |row| {
        Ok(RemainsRow {
            bot_id: row.text("bot_id")?,
            tenant_id: row.text("tenant_id")?,
            hostname: row.text("hostname")?,
            runner_id: row.text("runner_id")?,
            subnet: narrow(row, "subnet")?,
            created_at: row.int("created_at")?,
        })
    })
    .await
}

/// Nothing is left of a bot: its block is free.
///
/// # Errors
/// See [`want`].
pub async fn forget_remains(conn: &mut AnyConnection, bot_id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DELETE_REMAINS).bind(bot_id.to_owned())).await
}
