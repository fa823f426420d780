//! The authority as stored: made once, its key sealed by the vault.

use std::time::Duration;

use clawgate_shared::clock;

use super::FleetError;
use super::ca::{AUTHORITY_LIFE, Authority};
use crate::store::Db;
use crate::store::pki::{self, PkiRow};
use crate::vault::{Purpose, Vault};

/// Its row in the table of authorities.
const NAME: &str = "nodes";

/// Takes up the stored authority, or makes it at the first start.
pub(super) async fn open(db: &Db, vault: &Vault) -> Result<Authority, FleetError> {
    let found = pki::find(&mut *db.read().await?, NAME).await?;
    let row = match found {
        Some(row) => row,
        None => create(db, vault).await?,
    };
    let key = vault.open_blob(Purpose::CaKey, NAME, &row.sealed_key)?;
    let key = std::str::from_utf8(&key).map_err(|_| FleetError::Damaged("the authority's key is no text"))?;
    Ok(Authority::load(row.certificate_pem, key)?)
}

/// Two processes may do this at once: the first one's is taken by both.
async fn create(db: &Db, vault: &Vault) -> Result<PkiRow, FleetError> {
    let (authority, key) = Authority::create()?;
    let row = PkiRow {
        certificate_pem: authority.certificate_pem().to_owned(),
        sealed_key: vault.seal_blob(Purpose::CaKey, NAME, key.as_bytes())?,
    };
    let now = clock::now_micros();
    let mut tx = db.begin().await?;
    pki::insert(&mut tx, NAME, &row, now, now.saturating_add(micros(AUTHORITY_LIFE))).await?;
    let stored = pki::find(&mut tx, NAME).await?.ok_or(FleetError::Damaged("the authority was not stored"))?;
    tx.commit().await?;
    Ok(stored)
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
