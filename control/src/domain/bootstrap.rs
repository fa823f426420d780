//! What exists from the first start on.

use super::tenants::{self, DEFAULT_TENANT, NewTenant};
use super::{Caller, Domain, DomainError};
use crate::store;
use crate::store::tenants::TenantRow;

/// Makes the tenant `default` unless there is one.
///
/// # Errors
/// As the database.
pub async fn ensure_default_tenant(domain: &Domain) -> Result<TenantRow, DomainError> {
    if let Some(row) = find(domain).await? {
        return Ok(row);
    }
    let new = NewTenant { slug: DEFAULT_TENANT.to_owned(), ..NewTenant::default() };
    match tenants::create(domain, &Caller::system(), new).await {
        Ok(done) => Ok(done.value),
        // Another process was faster.
        Err(DomainError::AlreadyExists { .. }) => find(domain).await?.ok_or(DomainError::NotFound { what: "tenant" }),
        Err(error) => Err(error),
    }
}

async fn find(domain: &Domain) -> Result<Option<TenantRow>, DomainError> {
    let mut conn = domain.db.read().await?;
    Ok(store::tenants::by_slug(&mut conn, DEFAULT_TENANT).await?)
}
