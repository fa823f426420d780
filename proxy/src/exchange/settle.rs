//! The only exit of an exchange: usage record, metrics, access line.
//!
//! A [`Settlement`] is made when the exchange begins and consumed when it
//! ends. If it is dropped instead (the process stops, a bug panics), what is
//! known is settled from `Drop`, so that an exchange that reached a vendor can
//! not leave without its record. Where tokens are to be counted first, the
//! account goes to [`Counting`](super::Counting), which ends it in its stead.

use std::ops::{Deref, DerefMut};

use clawgate_shared::usage::Usage;

use super::Services;
use super::account::{Account, Charges, Ending};
use super::record::Facts;
use super::reject::Refusal;
use crate::metering::{ChargeRecord, OpenRecord, SpoolError, SpoolTicket};
use crate::quota::Spent;
use crate::wire::error::Code;

/// What becomes of a request while the spool takes no more. A bot with a quota
/// that blocks is refused in any case: nobody could tell later what it used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Refused: nothing is served that might not be counted.
    #[default]
    Refuse,
    /// Served. Its usage is recorded at its end if there is room again, and else
    /// counted as unmetered in the metrics.
    Serve,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vendor's answer went through whole.
    Ok,
    /// The vendor answered with an error, which went through.
    UpstreamError,
    /// The client went away first.
    ClientDisconnect,
    /// The vendor's answer broke off.
    Interrupted,
    /// We refused it before a vendor saw it.
    Refused,
    /// A vendor was asked, and no answer could be relayed.
    Failed,
}

impl Outcome {
    /// As in usage rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError => "upstream_error",
            Self::ClientDisconnect => "client_disconnect",
            Self::Interrupted => "interrupted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// An exchange's obligation to leave a record.
#[must_use]
pub struct Settlement<'a> {
    services: &'a Services,
    account: Account,
    /// The last OPEN says what is held of a key's quotas.
    key_is_written: bool,
    /// The last OPEN names another vendor or model.
    elsewhere: bool,
    settled: bool,
}

impl Deref for Settlement<'_> {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.account
    }
}

impl DerefMut for Settlement<'_> {
    fn deref_mut(&mut self) -> &mut Account {
        &mut self.account
    }
}

impl<'a> Settlement<'a> {
    /// Begins the obligation.
    pub fn new(services: &'a Services, facts: Facts) -> Self {
        services.metrics.inflight.inc();
        Self { services, account: Account::new(facts), key_is_written: false, elsewhere: false, settled: false }
    }

    /// Writes the OPEN record: from here on the exchange is accounted for,
    /// whatever happens to this process. It is written again for a further key
    /// when one of them has quotas, and for another vendor or model: none may be
    /// charged for what another held.
    ///
    /// # Errors
    /// The spool takes no more.
    pub fn open(&mut self) -> Result<(), Refusal> {
        if self.dispatched() && self.key_permit.is_empty() && !self.key_is_written && !self.elsewhere {
            return Ok(());
        }
        match self.append_open() {
            Ok(ticket) => (self.account.ticket, self.account.unmetered) = (Some(ticket), false),
            Err(_) if self.ticket.is_none() && self.may_go_unmetered() => self.unmetered = true,
            Err(error) => {
                let full = matches!(error, SpoolError::Full);
                let text = if full { "the usage spool is full" } else { "the usage spool cannot be written" };
                let mut refusal =
                    Refusal::new(Code::SpoolFull, format!("{text}; the control plane must take usage first"));
                refusal.cause = Some(error.to_string());
                return Err(refusal);
            }
        }
        self.key_is_written = !self.key_permit.is_empty();
        self.elsewhere = false;
        self.pass.sent();
        self.permit.sent();
        self.key_permit.sent();
        Ok(())
    }

    /// Notes that more is held for a longer answer: when that is twice what is
    /// written down, it is written again, for the case that nobody sees its end.
    pub fn grown(&mut self, more: u64) {
        self.held_output = self.held_output.saturating_add(more);
        if self.ticket.is_some()
            && self.reserved() >= self.facts.reserved_tokens.saturating_mul(2)
            && let Err(error) = self.append_open()
        {
            tracing::warn!(request_id = %self.facts.id, %error, "what a longer answer holds was not written down");
        }
    }

    /// Takes what an answer named, before it is passed on: it is written down, for
    /// the case that nobody sees the end.
    pub fn keep(&mut self, ids: Vec<String>) {
        let known = self.made.len();
        self.account.keep(self.services, ids);
        if self.made.len() > known
            && self.ticket.is_some()
            && let Err(error) = self.append_open()
        {
            tracing::warn!(request_id = %self.facts.id, %error, "what was made is not written down before the end");
        }
    }

    fn append_open(&mut self) -> Result<SpoolTicket, SpoolError> {
        let (account, reserved_tokens) = (&self.account, self.reserved());
        let held = account.permit.held().chain(account.key_permit.held());
        let held: Charges<'_> = held.map(ChargeRecord::from).collect();
        let record = OpenRecord { reserved_tokens, ..account.open_record(&held) };
        let ticket = self.services.spool.append_open(account.ticket, &record)?;
        drop(held);
        self.facts.reserved_tokens = reserved_tokens;
        Ok(ticket)
    }

    fn may_go_unmetered(&self) -> bool {
        self.services.when_full == WhenFull::Serve && self.permit.is_empty() && self.key_permit.is_empty()
    }

    /// What exchanges share.
    #[must_use]
    pub const fn services(&self) -> &'a Services {
        self.services
    }

    /// Gives back what is held of the key that was tried: its vendor refused, or
    /// never got the request.
    pub fn free_key(&mut self) {
        let nothing = Usage::default();
        let spent = Spent { usage: &nothing, cost_micros: None, requests: 0, nothing_else: true };
        std::mem::take(&mut self.key_permit).settle(&spent);
    }

    /// Gives back what is held for the vendor and model that were tried: they
    /// refused, or never got the request. Another one is weighed by itself.
    pub fn turn_away(&mut self) {
        self.free_key();
        let nothing = Usage::default();
        let spent = Spent { usage: &nothing, cost_micros: None, requests: 0, nothing_else: true };
        std::mem::take(&mut self.permit).settle(&spent);
        self.pass.with_key(None);
        (self.price, self.usual, self.bound) = (None, None, None);
        (self.prompt_elsewhere, self.held_output, self.facts.max_tokens) = (false, 0, None);
        self.elsewhere = true;
    }

    /// Ends the exchange, now or as soon as its tokens are counted.
    pub fn settle(mut self, outcome: Outcome, refusal: Option<Refusal>) {
        self.settled = true;
        let ending = Ending { outcome, refusal, duration_micros: self.facts.elapsed_micros() };
        if self.recount.is_none() {
            return self.account.finish(self.services, &ending);
        }
        // Whoever waits for a place need not wait for a count.
        self.pass.leave();
        let account = std::mem::replace(&mut self.account, Account::new(Facts::none()));
        self.services.counting.end(self.services, account, ending);
    }
}

impl Drop for Settlement<'_> {
    fn drop(&mut self) {
        if !self.settled {
            let outcome = if self.dispatched() { Outcome::Interrupted } else { Outcome::Refused };
            let ending = Ending { outcome, refusal: None, duration_micros: self.facts.elapsed_micros() };
            self.account.finish(self.services, &ending);
        }
    }
}
