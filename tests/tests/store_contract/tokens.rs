//! Tokens of bots and admins, and answers that are kept.

use clawgate_control::domain::api_tokens::{self, NewApiToken};
use clawgate_control::domain::auth::{AuthError, authenticate};
use clawgate_control::domain::bots::{self, NewBotToken};
use clawgate_control::domain::{Domain, DomainError, Permission, Role};
use clawgate_control::store;
use clawgate_control::store::idempotency::{self, Claim, Claimed, KEEP_MICROS, PENDING_MICROS};
use clawgate_control::store::page::Page;
use clawgate_shared::{clock, token};

use crate::config::{broken, member, root};

/// Needs the bot `helper`.
pub async fn bot_tokens(domain: &Domain, tenant_id: &str) {
    let admin = member(tenant_id, Role::Admin, "token:a");
    let place = (tenant_id, "helper");
    let now = clock::now_micros();
    let new = NewBotToken { name: Some("ci".into()), expires_at: Some(now + 60_000_000) };
    let minted = bots::mint_token(domain, &admin, place, new).await.expect("mints").value;
    assert!(token::well_formed(token::TokenKind::Bot, &minted.text));
    assert_eq!(minted.row.sha256, token::hash(minted.text.as_bytes()));
    let past = NewBotToken { name: None, expires_at: Some(1) };
    assert_eq!(broken(bots::mint_token(domain, &admin, place, past).await), [("expires_at".to_owned(), "range")]);
    let long = bots::rotate_token(domain, &admin, place, 90_000).await;
    assert_eq!(broken(long), [("overlap_seconds".to_owned(), "range")]);

    let rotated = bots::rotate_token(domain, &admin, place, 30).await.expect("rotates").value;
    let mut conn = domain.db.read().await.expect("reads");
    let all = store::bot_tokens::of_bot(&mut conn, &minted.row.bot_id).await.expect("reads");
    // Two that were made with the bot, one of them for its container, and two
    // that came with the rotation.
    assert_eq!(all.len(), 5);
    for row in &all {
        let ends = row.expires_at.unwrap_or(i64::MAX);
        let stays = row.id == rotated.row.id || (row.network.is_some() && row.expires_at.is_none());
        assert_eq!(ends < now + 45_000_000, !stays, "{row:?}");
    }
    let later = store::bot_tokens::usable(&mut conn, now + 3_600_000_000).await.expect("reads");
    assert_eq!(later.iter().filter(|row| row.bot_id == minted.row.bot_id).count(), 2);
    assert_eq!(store::bot_tokens::count_usable(&mut conn, &minted.row.bot_id, now).await.expect("counts"), 5);
    drop(conn);
    bots::delete_token(domain, &admin, place, &rotated.row.id).await.expect("deletes");
    let again = bots::delete_token(domain, &admin, place, &rotated.row.id).await;
    assert!(matches!(again, Err(DomainError::NotFound { .. })));
    let mut conn = domain.db.read().await.expect("reads");
    assert_eq!(store::bot_tokens::count_usable(&mut conn, &minted.row.bot_id, now).await.expect("counts"), 4);
}

pub async fn api_tokens(domain: &Domain, tenant_id: &str) {
    let bootstrap_text = "bootstrap-token-of-this-test";
    let bootstrap = token::hash(bootstrap_text.as_bytes());
    let who = async |text: &str| authenticate(&domain.db, &bootstrap, text).await;
    assert_eq!(who(bootstrap_text).await.expect("known").role, Role::Bootstrap);
    assert!(matches!(who("cga_nonsense").await, Err(AuthError::Invalid)));

    let new = |role: &str, scopes: &[&str]| NewApiToken {
        name: "t".into(),
        role: role.into(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at: None,
    };
    let minted = api_tokens::create(domain, &root(), Some(tenant_id), new("admin", &[])).await.expect("mints").value;
    let admin = who(&minted.text).await.expect("known");
    assert_eq!((admin.role, admin.tenant_id.as_deref()), (Role::Admin, Some(tenant_id)));
    let admin = clawgate_control::domain::Caller { principal: admin, ..root() };
    let above = api_tokens::create(domain, &admin, Some(tenant_id), new("owner", &[])).await;
    assert!(matches!(above, Err(DomainError::GrantExceedsGrantor)), "{above:?}");
    let platform = api_tokens::create(domain, &admin, None, new("platform_admin", &[])).await;
    assert!(matches!(platform, Err(DomainError::Forbidden { .. })), "{platform:?}");
    let wrong = api_tokens::create(domain, &admin, Some(tenant_id), new("bootstrap", &["bot.fly"])).await;
    assert_eq!(broken(wrong), [("role".to_owned(), "one_of"), ("scopes[0]".to_owned(), "one_of")]);
    let narrowed = api_tokens::create(domain, &admin, Some(tenant_id), new("viewer", &["usage.read"])).await;
    let narrowed = narrowed.expect("mints").value;
    let viewer = who(&narrowed.text).await.expect("known");
    assert!(viewer.has(Permission::UsageRead) && !viewer.has(Permission::BotRead));
    api_tokens::create(domain, &root(), None, new("platform_admin", &[])).await.expect("mints");

    let mut conn = domain.db.read().await.expect("reads");
    let listed = store::api_tokens::list(&mut conn, Some(tenant_id), &Page::default()).await.expect("lists");
    assert_eq!((listed.rows.len(), listed.total), (2, Some(2)));
    assert!(listed.rows[0].last_used_at.is_some(), "its use was noted");
    assert_eq!(store::api_tokens::list(&mut conn, None, &Page::default()).await.expect("lists").total, Some(1));
    let row = store::api_tokens::get(&mut conn, Some(tenant_id), &narrowed.row.id).await.expect("reads");
    assert_eq!(row.map(|row| row.scopes), Some(vec!["usage.read".to_owned()]));
    drop(conn);
    api_tokens::revoke(domain, &admin, Some(tenant_id), &narrowed.row.id).await.expect("revokes");
    assert!(matches!(who(&narrowed.text).await, Err(AuthError::Invalid)));
    let again = api_tokens::revoke(domain, &admin, Some(tenant_id), &narrowed.row.id).await;
    assert!(matches!(again, Err(DomainError::NotFound { .. })));
    expired(domain, tenant_id, &bootstrap).await;
}

async fn expired(domain: &Domain, tenant_id: &str, bootstrap: &token::TokenHash) {
    let new = NewApiToken {
        name: "short".into(),
        role: "viewer".into(),
        scopes: Vec::new(),
        expires_at: Some(clock::now_micros() + 3_600_000_000),
    };
    let minted = api_tokens::create(domain, &root(), Some(tenant_id), new).await.expect("mints").value;
    let mut tx = domain.db.begin().await.expect("begins");
    let update = sqlx::query("UPDATE api_tokens SET expires_at = 1 WHERE id = $1").bind(minted.row.id.as_str());
    update.execute(&mut *tx).await.expect("ages");
    tx.commit().await.expect("commits");
    assert!(matches!(authenticate(&domain.db, bootstrap, &minted.text).await, Err(AuthError::Expired)));
}

pub async fn idempotent_answers(domain: &Domain) {
    let now = clock::now_micros();
    let claim = |route, body: &'static [u8]| Claim { principal: "token:a", key: "k1", route, body_sha256: body };
    let mut tx = domain.db.begin().await.expect("begins");
    let ask = claim("POST /bots", b"1");
    assert_eq!(idempotency::claim(&mut tx, ask, now).await.expect("claims"), Claimed::New);
    assert_eq!(idempotency::claim(&mut tx, ask, now).await.expect("claims"), Claimed::InProgress);
    let crashed = now + PENDING_MICROS + 1;
    assert_eq!(idempotency::claim(&mut tx, ask, crashed).await.expect("claims"), Claimed::New);
    idempotency::release(&mut tx, "token:a", "k1").await.expect("releases");
    assert_eq!(idempotency::claim(&mut tx, ask, now).await.expect("claims"), Claimed::New);
    idempotency::finish(&mut tx, "token:a", "k1", b"sealed", now).await.expect("finishes");
    assert_eq!(idempotency::claim(&mut tx, ask, now).await.expect("claims"), Claimed::Done(b"sealed".to_vec()));
    for other in [claim("POST /bots", b"2"), claim("POST /projects", b"1")] {
        assert_eq!(idempotency::claim(&mut tx, other, now).await.expect("claims"), Claimed::Mismatch);
    }
    idempotency::release(&mut tx, "token:a", "k1").await.expect("keeps what is done");
    assert_eq!(idempotency::purge(&mut tx, now + KEEP_MICROS - 1).await.expect("purges"), 0);
    assert_eq!(idempotency::purge(&mut tx, now + KEEP_MICROS).await.expect("purges"), 1);
    tx.commit().await.expect("commits");
}
