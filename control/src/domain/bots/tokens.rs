//! Bot tokens: minted once, stored as a hash.

use clawgate_shared::seal::SealError;
use clawgate_shared::token::{self, TokenKind};
use clawgate_shared::{clock, id};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Change, container, find, target};
use crate::domain::rules::Errors;
use crate::domain::{Caller, Domain, DomainError, Done};
use crate::store::bot_tokens::{self, BotTokenRow};

/// Longest time for which old tokens may outlive a rotation, in seconds.
pub const MAX_OVERLAP_SECONDS: u32 = 86_400;
/// Usable tokens of one bot.
const MAX_TOKENS: u64 = 32;

/// A token to be made.
#[derive(Clone, Debug, Default)]
pub struct NewBotToken {
    /// For people; `token` unless given.
    pub name: Option<String>,
    /// Unix microseconds; `None`: never.
    pub expires_at: Option<i64>,
}

/// A new token with its text, which is shown once.
pub struct MintedBotToken {
    /// What is stored.
    pub row: BotTokenRow,
    /// The token itself.
    pub text: Zeroizing<String>,
}

impl std::fmt::Debug for MintedBotToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedBotToken").field("id", &self.row.id).finish_non_exhaustive()
    }
}

/// Makes one more token for a bot.
///
/// # Errors
/// Needs to be allowed to change the bot; `LimitReached` at 32.
pub async fn mint_token(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    new: NewBotToken,
) -> Result<Done<MintedBotToken>, DomainError> {
    let now = clock::now_micros();
    let name = new.name.unwrap_or_else(|| "token".into());
    let mut errors = Errors::default();
    errors.name("name", &name);
    if new.expires_at.is_some_and(|at| at <= now) {
        errors.add("expires_at", "range", "must be in the future");
    }
    errors.finish()?;
    let mut change = Change::begin(domain).await?;
    let bot = find(&mut change, caller, tenant_id, hostname).await?;
    if bot_tokens::count_usable(&mut change, &bot.id, now).await? >= MAX_TOKENS {
        return Err(DomainError::LimitReached { what: "bot tokens", limit: MAX_TOKENS });
    }
    let token = add(&mut change, &bot.id, &name, new.expires_at, now).await?;
    let detail =
        json!({"hostname": bot.hostname, "token_id": token.row.id, "name": name, "expires_at": new.expires_at});
    change.audit(caller, "bot_token.create", target(&bot), detail).await?;
    change.publish(token).await
}

/// Replaces every token of a bot by a new one; the old ones end after
/// `overlap_seconds`, or at once with 0.
///
/// # Errors
/// Needs to be allowed to change the bot.
pub async fn rotate_token(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    overlap_seconds: u32,
) -> Result<Done<MintedBotToken>, DomainError> {
    let mut errors = Errors::default();
    errors.range("overlap_seconds", overlap_seconds.into(), 0, MAX_OVERLAP_SECONDS.into());
    errors.finish()?;
    let now = clock::now_micros();
    let mut change = Change::begin(domain).await?;
    let mut bot = find(&mut change, caller, tenant_id, hostname).await?;
    let until = now.saturating_add(i64::from(overlap_seconds) * 1_000_000);
    let ending = bot_tokens::expire_all(&mut change, &bot.id, until).await?;
    let token = add(&mut change, &bot.id, "rotated", None, now).await?;
    container::rotated(&mut change, domain, &mut bot, now).await?;
    let detail = json!({
        "hostname": bot.hostname, "token_id": token.row.id, "overlap_seconds": overlap_seconds, "ending": ending,
    });
    change.audit(caller, "bot_token.rotate", target(&bot), detail).await?;
    change.publish(token).await
}

/// Revokes one token at once.
///
/// # Errors
/// Needs to be allowed to change the bot; `NotFound` when it was revoked before.
pub async fn delete_token(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    token_id: &str,
) -> Result<Done<()>, DomainError> {
    let mut change = Change::begin(domain).await?;
    let bot = find(&mut change, caller, tenant_id, hostname).await?;
    if !bot_tokens::revoke(&mut change, &bot.id, token_id, clock::now_micros()).await? {
        return Err(DomainError::NotFound { what: "bot token" });
    }
    let detail = json!({"hostname": bot.hostname, "token_id": token_id});
    change.audit(caller, "bot_token.delete", target(&bot), detail).await?;
    change.publish(()).await
}

/// Mints and stores a token in a running change.
pub(super) async fn add(
    change: &mut Change,
    bot_id: &str,
    name: &str,
    expires_at: Option<i64>,
    now: i64,
) -> Result<MintedBotToken, DomainError> {
    add_within(change, bot_id, name, (expires_at, None), now).await
}

/// The same, with an end and a network, if it has them.
pub(super) async fn add_within(
    change: &mut Change,
    bot_id: &str,
    name: &str,
    (expires_at, network): (Option<i64>, Option<String>),
    now: i64,
) -> Result<MintedBotToken, DomainError> {
    let text = token::mint(TokenKind::Bot).map_err(|_| DomainError::Vault(SealError::Random.into()))?;
    let row = BotTokenRow {
        id: id::new(id::Kind::Token),
        bot_id: bot_id.to_owned(),
        name: name.to_owned(),
        sha256: token::hash(text.as_bytes()).to_vec(),
        last4: last4(&text),
        expires_at,
        revoked_at: None,
        created_at: now,
        network,
    };
    bot_tokens::insert(change, &row).await?;
    Ok(MintedBotToken { row, text })
}

/// The end of a token: it is the checksum and says nothing about the secret.
pub(in crate::domain) fn last4(text: &str) -> String {
    text.get(text.len().saturating_sub(4)..).unwrap_or_default().to_owned()
}
