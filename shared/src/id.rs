//! Ids: a prefix that says what it names, then a UUIDv7 without hyphens, so
//! that ids sort by creation and cannot be taken for one another.

use uuid::Uuid;

/// What an id names. The prefix is part of the id, on every wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ten_`
    Tenant,
    /// `prj_`
    Project,
    /// `bot_`
    Bot,
    /// `key_`: a provider key
    ProviderKey,
    /// `ven_`: a tenant's own vendor
    Vendor,
    /// `tok_`: a bot token or an API token (the record, not the secret)
    Token,
    /// `node_`
    Node,
    /// `req_`: one exchange
    Exchange,
    /// `aud_`
    Audit,
    /// `ent_`: an enrolment token
    EnrollToken,
    /// `prc_`: a stored price
    Price,
    /// `quo_`
    Quota,
    /// `run_`: a runner
    Runner,
    /// `evt_`: something that happened to a bot
    BotEvent,
    /// `ins_`: one control plane's database
    Installation,
}

impl Kind {
    /// The text before the UUID.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Tenant => "ten_",
            Self::Project => "prj_",
            Self::Bot => "bot_",
            Self::ProviderKey => "key_",
            Self::Vendor => "ven_",
            Self::Token => "tok_",
            Self::Node => "node_",
            Self::Exchange => "req_",
            Self::Audit => "aud_",
            Self::EnrollToken => "ent_",
            Self::Price => "prc_",
            Self::Quota => "quo_",
            Self::Runner => "run_",
            Self::BotEvent => "evt_",
            Self::Installation => "ins_",
        }
    }

    /// Whether `text` has the shape of an id of this kind.
    #[must_use]
    pub fn matches(self, text: &str) -> bool {
        text.strip_prefix(self.prefix()).is_some_and(|rest| {
            rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    }
}

/// A new id.
#[must_use]
pub fn new(kind: Kind) -> String {
    format!("{}{}", kind.prefix(), Uuid::now_v7().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_kind_and_sort_by_creation() {
        let (a, b) = (new(Kind::Bot), new(Kind::Bot));
        assert!(a < b);
        assert!(Kind::Bot.matches(&a));
        assert!(!Kind::ProviderKey.matches(&a));
        assert!(!Kind::Bot.matches("bot_123"));
    }
}
