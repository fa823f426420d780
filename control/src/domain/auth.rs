//! From a presented token to a principal.

use clawgate_shared::clock;
use clawgate_shared::token::{self, TokenHash, TokenKind};
use subtle::ConstantTimeEq as _;

use super::{Permission, Principal, Role};
use crate::store::api_tokens::{self, ApiTokenRow};
use crate::store::{Db, StoreError};

/// A use is noted at most this often, in microseconds.
const TOUCH_EVERY: i64 = 60_000_000;

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Unknown, revoked or mistyped.
    #[error("the token is not known")]
    Invalid,
    /// Was good until a moment ago.
    #[error("the token has expired")]
    Expired,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds out who presents `text`. `bootstrap` is the hash of the bootstrap
/// admin token; hashes are compared, in constant time.
///
/// # Errors
/// See [`AuthError`].
pub async fn authenticate(db: &Db, bootstrap: &TokenHash, text: &str) -> Result<Principal, AuthError> {
    let hash = token::hash(text.as_bytes());
    if bool::from(hash.ct_eq(bootstrap)) {
        return Ok(Principal::bootstrap());
    }
    if !token::well_formed(TokenKind::Api, text) {
        return Err(AuthError::Invalid);
    }
    let found = {
        let mut conn = db.read().await?;
        api_tokens::by_hash(&mut conn, &hash).await?
    };
    let row = found.filter(|row| row.revoked_at.is_none()).ok_or(AuthError::Invalid)?;
    let now = clock::now_micros();
    if row.expires_at.is_some_and(|at| at <= now) {
        return Err(AuthError::Expired);
    }
    if row.last_used_at.unwrap_or(0) < now - TOUCH_EVERY {
        note_use(db, &row.id, now).await;
    }
    principal(&row)
}

/// A use that cannot be noted is no reason to refuse.
async fn note_use(db: &Db, id: &str, now: i64) {
    let noted = async {
        let mut tx = db.begin().await?;
        api_tokens::touch(&mut tx, id, now, now - TOUCH_EVERY).await?;
        tx.commit().await
    };
    if let Err(error) = noted.await {
        tracing::debug!(%error, "the use of an API token was not noted");
    }
}

fn principal(row: &ApiTokenRow) -> Result<Principal, AuthError> {
    let role = Role::from_column("role", &row.role)?;
    let scopes =
        row.scopes.iter().map(|scope| Permission::from_column("scopes", scope)).collect::<Result<Vec<_>, _>>()?;
    // The bootstrap role is never granted; a row that says so was not written by us.
    if role == Role::Bootstrap || role.is_platform() != row.tenant_id.is_none() {
        return Err(AuthError::Invalid);
    }
    Ok(Principal { actor: format!("token:{}", row.id), tenant_id: row.tenant_id.clone(), role, scopes })
}
