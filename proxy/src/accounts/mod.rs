//! Who made the things that stay in vendor accounts, and with which key.
//!
//! Invariant: what is said here of an id was read from an answer to the bot that
//! is named, by this node or, as the control plane tells, by another one; an id of
//! which nothing is known is nobody's. Everything is bounded, and what was dropped
//! is asked for again.
//! Deliberately absent: what requests name (`wire::references`), what follows from
//! it (`exchange::ties`), durability (the usage record carries ids to the control
//! plane).

mod asker;
mod known;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clawgate_shared::clock;

pub use asker::Asker;
pub use known::{Known, Look, Maker};

/// Another node, or the one before this, tells what it saw within about half a
/// second: so often, and so far apart, is asked again what nobody is known of.
const AGAIN: [Duration; 2] = [Duration::from_millis(350); 2];

/// The control plane must be asked, and cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane cannot be asked who made something")]
pub struct Away;

/// What a node knows of ids, and its way to learn more.
#[derive(Debug, Default)]
pub struct Makers {
    known: Mutex<Known>,
    asker: OnceLock<Asker>,
}

impl Makers {
    /// Gives it its way to the control plane, once.
    pub fn connect(&self, asker: Asker) {
        // A second one would be the same.
        let _ = self.asker.set(asker);
    }

    /// Remembers what a bot's exchange made: it may be named at once.
    pub fn made(&self, tenant: &str, vendor: &str, ids: &[String], maker: &Maker) {
        let now = clock::boot_micros();
        self.with(|known| ids.iter().for_each(|id| known.made(tenant, vendor, id, maker, now)));
    }

    /// Who made each of `ids`; `None`: nobody who is known.
    ///
    /// # Errors
    /// One is not known here and the control plane cannot be asked.
    pub async fn find(&self, tenant: &str, vendor: &str, ids: &[String]) -> Result<Vec<Option<Maker>>, Away> {
        let now = clock::boot_micros();
        let looks: Vec<Look> = self.with(|known| ids.iter().map(|id| known.look(tenant, vendor, id, now)).collect());
        let asks = |look: &Look| matches!(look, Look::Unknown | Look::Old(_));
        let open: Vec<String> =
            ids.iter().zip(&looks).filter(|(_, look)| asks(look)).map(|(id, _)| id.clone()).collect();
        // Of what is known and old, nothing newer is no news.
        let fresh: Vec<bool> = looks.iter().filter(|look| asks(look)).map(|look| *look == Look::Unknown).collect();
        let answers = match (&open[..], self.asker.get()) {
            ([], _) => Ok(Vec::new()),
            (open, Some(asker)) => ask_patiently(asker, tenant, vendor, open, &fresh).await,
            (_, None) => Err(Away),
        };
        let now = clock::boot_micros();
        if let Ok(answers) = &answers {
            self.with(|known| {
                open.iter().zip(answers).for_each(|(id, maker)| known.heard(tenant, vendor, id, maker.as_ref(), now));
            });
        }
        let mut answers = answers.map(Vec::into_iter);
        let told = looks.into_iter().map(|look| match (look, &mut answers) {
            (Look::Known(maker), _) => Ok(Some(maker)),
            (Look::Nobody, _) => Ok(None),
            (Look::Unknown, Ok(answers)) => Ok(answers.next().flatten()),
            // Who made something never changes: nothing newer is only less sure
            // to be kept.
            (Look::Old(maker), Ok(answers)) => Ok(Some(answers.next().flatten().unwrap_or(maker))),
            (Look::Old(maker), Err(Away)) => Ok(Some(maker)),
            (Look::Unknown, Err(Away)) => Err(Away),
        });
        told.collect()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks, and again while nobody is known to have made something that is `fresh`.
async fn ask_patiently(
    asker: &Asker,
    tenant: &str,
    vendor: &str,
    ids: &[String],
    fresh: &[bool],
) -> Result<Vec<Option<Maker>>, Away> {
    let mut answers = asker.ask(tenant, vendor, ids).await?;
    for pause in AGAIN {
        if !answers.iter().zip(fresh).any(|(maker, fresh)| *fresh && maker.is_none()) {
            break;
        }
        tokio::time::sleep(pause).await;
        answers = asker.ask(tenant, vendor, ids).await?;
    }
    Ok(answers)
}

impl Maker {
    /// Of a bot's exchange with a key.
    #[must_use]
    pub fn new(bot: &str, key: &str) -> Self {
        Self { bot: Arc::from(bot), key: Arc::from(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_made_here_is_known_without_asking_and_nothing_else_is() {
        let makers = Makers::default();
        let maker = Maker::new("bot_1", "key_1");
        makers.made("ten_1", "openai", &["file-1".to_owned()], &maker);
        let find = async |tenant: &str, vendor: &str, ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            makers.find(tenant, vendor, &ids).await
        };
        assert_eq!(find("ten_1", "openai", &["file-1"]).await, Ok(vec![Some(maker.clone())]));
        assert_eq!(find("ten_1", "openai", &["file-1", "file-2"]).await, Err(Away));
        assert_eq!(find("ten_2", "openai", &["file-1"]).await, Err(Away));
        assert_eq!(find("ten_1", "azure-openai", &["file-1"]).await, Err(Away));
        assert_eq!(find("ten_1", "openai", &[]).await, Ok(vec![]));
    }
}
