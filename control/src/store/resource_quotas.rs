//! What the bots of a tenant may take together.

use sqlx::AnyConnection;

use super::error::StoreError;
use super::fetch;
use super::row::{RowExt as _, to_int};

const SELECT: &str = "SELECT bots, cpu_millis, memory_mb, disk_mb FROM tenant_resource_quotas WHERE tenant_id = $1";
const UPSERT: &str = "INSERT INTO tenant_resource_quotas (tenant_id, bots, cpu_millis, memory_mb, disk_mb, updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id) DO UPDATE SET bots = excluded.bots, \
    cpu_millis = excluded.cpu_millis, memory_mb = excluded.memory_mb, disk_mb = excluded.disk_mb, \
    updated_at = excluded.updated_at";

/// Limits; `None`: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceQuota {
    /// Bots, external ones too.
    pub bots: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// MiB.
    pub memory_mb: Option<u64>,
    /// MiB.
    pub disk_mb: Option<u64>,
}

/// A tenant's limits.
///
/// # Errors
/// As the database answers.
pub async fn get(conn: &mut AnyConnection, tenant_id: &str) -> Result<ResourceQuota, StoreError> {
    let found = fetch::one(conn, sqlx::query(SELECT).bind(tenant_id.to_owned()), |row| {
        Ok(ResourceQuota {
            bots: row.opt_uint("bots")?,
            cpu_millis: row.opt_uint("cpu_millis")?,
            memory_mb: row.opt_uint("memory_mb")?,
            disk_mb: row.opt_uint("disk_mb")?,
        })
    });
    Ok(found.await?.unwrap_or_default())
}

/// Replaces a tenant's limits.
///
/// # Errors
/// As the database answers.
pub async fn put(conn: &mut AnyConnection, tenant_id: &str, quota: ResourceQuota, now: i64) -> Result<(), StoreError> {
    sqlx::query(UPSERT)
        .bind(tenant_id.to_owned())
        .bind(quota.bots.map(to_int))
        .bind(quota.cpu_millis.map(to_int))
        .bind(quota.memory_mb.map(to_int))
        .bind(quota.disk_mb.map(to_int))
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}
