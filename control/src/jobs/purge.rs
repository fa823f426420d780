//! Clears away what has served its purpose.

use crate::store::{
    Db, StoreError, account_ids, bot_events, enroll, idempotency, quota_leases, quota_windows, usage_ingest,
};

/// How long an expired enrolment token is kept, so that its refusal can be
/// told apart in the log; microseconds.
const TOKEN_GRACE: i64 = 24 * 3600 * 1_000_000;
/// Open exchanges older than this are looked at; microseconds.
const OPEN_AGE: i64 = 24 * 3600 * 1_000_000;

/// How long windows of minutes and hours are kept after their end, and those of
/// days and more; microseconds.
const WINDOW_AGES: (i64, i64) = (2 * 24 * 3600 * 1_000_000, 400 * 24 * 3600 * 1_000_000);

/// How long who made something is kept after it was last used: what the vendor
/// forgets by itself (a stored response after 30 days), and what stays until it is
/// deleted; microseconds.
const ID_AGES: (i64, i64) = (35 * 24 * 3600 * 1_000_000, 400 * 24 * 3600 * 1_000_000);

/// How long history and minutes of bots that we run are kept; microseconds.
const HISTORY_AGE: i64 = 30 * 24 * 3600 * 1_000_000;

/// How many rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Kept answers of creates.
    pub idempotency_keys: u64,
    /// Expired enrolment tokens.
    pub enroll_tokens: u64,
    /// Open exchanges that have an event after all.
    pub settled_opens: u64,
    /// Windows of quotas that ended long ago, or whose quota is gone.
    pub quota_windows: u64,
    /// Leases of such windows.
    pub quota_leases: u64,
    /// Ids in vendor accounts that nobody used for long.
    pub account_ids: u64,
    /// What happened long ago to bots that we run.
    pub bot_history: u64,
}

/// One run.
///
/// # Errors
/// As the database answers.
pub async fn run(db: &Db, now: i64) -> Result<Purged, StoreError> {
    let mut tx = db.begin().await?;
    let purged = Purged {
        idempotency_keys: idempotency::purge(&mut tx, now).await?,
        enroll_tokens: enroll::delete_expired(&mut tx, now.saturating_sub(TOKEN_GRACE)).await?,
        settled_opens: usage_ingest::delete_settled_opens(&mut tx, now.saturating_sub(OPEN_AGE)).await?,
        quota_windows: quota_windows::purge(
            &mut tx,
            now.saturating_sub(WINDOW_AGES.0),
            now.saturating_sub(WINDOW_AGES.1),
        )
        .await?,
        quota_leases: quota_leases::purge(&mut tx).await?,
        account_ids: account_ids::purge(&mut tx, now.saturating_sub(ID_AGES.0), now.saturating_sub(ID_AGES.1)).await?,
        bot_history: bot_events::purge(&mut tx, now.saturating_sub(HISTORY_AGE)).await?,
    };
    tx.commit().await?;
    Ok(purged)
}

#[cfg(test)]
mod tests {
    use clawgate_shared::clock;

    use super::*;
    use crate::fleet::testing::Plane;

    #[tokio::test]
    async fn only_what_expired_a_day_ago_goes() {
        let plane = Plane::new().await;
        let mut tx = plane.db.begin().await.expect("begins");
        let token =
            plane.fleet.mint_enroll_token(&mut tx, crate::fleet::EnrollKind::Node, "test").await.expect("mints");
        tx.commit().await.expect("commits");
        let purged = |enroll_tokens| Purged { enroll_tokens, ..Purged::default() };
        assert_eq!(run(&plane.db, clock::now_micros()).await.expect("runs"), purged(0));
        assert_eq!(run(&plane.db, token.expires_at + TOKEN_GRACE).await.expect("runs"), purged(0));
        assert_eq!(run(&plane.db, token.expires_at + TOKEN_GRACE + 1).await.expect("runs"), purged(1));
    }
}
