//! What is there and should not be, and what should be there and is not.

use std::sync::Arc;

use super::links::Marked;
use super::orders::Verb;
use super::plan::Wanted;
use super::reconcile::{SHORT, wanted};
use super::{Runtime, orders::Failure};
use crate::store::bots::{self, BotRow};
use crate::store::containers;
use crate::store::{StoreError, runners};

/// One thing out of place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Orphan {
    /// A container with our mark, and no bot that it belongs to.
    Container {
        /// Who has it.
        runner_id: String,
        /// What its labels say.
        marked: Marked,
    },
    /// A bot that should run and has no container where it lives.
    Bot {
        /// Whose.
        bot: Box<BotRow>,
        /// Its runner was revoked, or is not known.
        runner_gone: bool,
    },
}

impl Orphan {
    /// The tenant that it is of, as far as is known.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        match self {
            Self::Container { marked, .. } => &marked.tenant_id,
            Self::Bot { bot, .. } => &bot.tenant_id,
        }
    }
}

/// What came of clearing one thing up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// What it was.
    pub orphan: Orphan,
    /// Why it is still there; `None`: it is not.
    pub failure: Option<Failure>,
}

impl Runtime {
    /// Everything that is out of place; of one tenant when `tenant_id` says so.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn orphans(&self, tenant_id: Option<&str>) -> Result<Vec<Orphan>, StoreError> {
        let mut conn = self.db.read().await?;
        let rows = bots::run_by_us(&mut conn).await?;
        let remains = containers::remains(&mut conn).await?;
        let known = runners::list(&mut conn, i64::MAX).await?;
        drop(conn);
        let mut found = Vec::new();
        for (runner_id, cells) in self.links.everything() {
            for marked in cells {
                // What is being taken away is not lost.
                let leaving = remains.iter().any(|row| row.bot_id == marked.bot_id && row.runner_id == runner_id);
                let owned = rows.iter().any(|row| row.id == marked.bot_id && lives_at(row, &runner_id));
                if !owned && !leaving {
                    found.push(Orphan::Container { runner_id: runner_id.clone(), marked });
                }
            }
        }
        for row in rows {
            let Some(runner_id) = row.container.as_deref().and_then(|container| container.runner_id.clone()) else {
                continue;
            };
            let runner_gone = !known.iter().any(|runner| runner.id == runner_id);
            let missing = self.links.look(Some(&runner_id), &row.id).cell == Some(None) && !self.is_busy(&row.id);
            if runner_gone || (missing && wanted(&row) == Wanted::Running) {
                found.push(Orphan::Bot { bot: Box::new(row), runner_gone });
            }
        }
        found.retain(|orphan| tenant_id.is_none_or(|wanted| wanted == orphan.tenant_id()));
        Ok(found)
    }

    /// Takes containers without a bot away, makes those of bots without one, and
    /// has bots whose runner is gone placed again.
    ///
    /// # Errors
    /// As the database answers; what was cleared before stays cleared.
    pub async fn clean_up(self: &Arc<Self>, tenant_id: Option<&str>) -> Result<Vec<Cleared>, StoreError> {
        let mut done = Vec::new();
        for orphan in self.orphans(tenant_id).await? {
            let failure = match &orphan {
                Orphan::Container { runner_id, marked } => {
                    let place = (marked.bot_id.as_str(), marked.cell.generation);
                    // Its bot may come back from a backup: the state stays.
                    let order = self.links.order(runner_id, place, Verb::Remove { with_state: false }, SHORT);
                    let failure = order.await.err();
                    if failure.is_none() {
                        self.links.learn(runner_id, &marked.bot_id, None);
                    }
                    failure
                }
                Orphan::Bot { bot, runner_gone } => {
                    let mut tx = self.db.begin().await?;
                    if *runner_gone {
                        containers::displace(&mut tx, &bot.id).await?;
                    } else {
                        containers::try_now(&mut tx, &bot.id).await?;
                    }
                    tx.commit().await?;
                    None
                }
            };
            done.push(Cleared { orphan, failure });
        }
        if tenant_id.is_none() {
            self.write_off().await?;
        }
        self.wake();
        Ok(done)
    }
}

impl Runtime {
    /// What is left of deleted bots at runners that were shut out will never be
    /// taken away: their networks are free.
    async fn write_off(&self) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let known = runners::list(&mut tx, i64::MAX).await?;
        for row in containers::remains(&mut tx).await? {
            if !known.iter().any(|runner| runner.id == row.runner_id) {
                containers::forget_remains(&mut tx, &row.bot_id).await?;
            }
        }
        tx.commit().await
    }
}

fn lives_at(row: &BotRow, runner_id: &str) -> bool {
    row.container.as_deref().is_some_and(|container| container.runner_id.as_deref() == Some(runner_id))
}
