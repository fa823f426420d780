//! What runners tell that is kept in the database.
//!
//! A runner is believed about bots that live with it, and about no others.

use clawgate_shared::{clock, id};

use super::Runtime;
use crate::store::bot_events::{self, BotEventRow, Minute};
use crate::store::row::clean;
use crate::store::runners::{self, RunnerRow};
use crate::store::types::BotEventKind;
use crate::store::{Conn, StoreError, containers};

/// Longest word of an engine that is kept, in characters.
const MAX_WORD: usize = 64;

impl Runtime {
    /// What a runner is.
    ///
    /// # Errors
    /// As the database answers; so for all functions here.
    pub async fn runner_told(&self, row: &RunnerRow) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        runners::save_state(&mut tx, row).await?;
        tx.commit().await
    }

    /// Its stream ended, and nobody else has one of it.
    ///
    /// # Errors
    /// See [`Self::runner_told`].
    pub async fn runner_left(&self, runner_id: &str) -> Result<(), StoreError> {
        if self.links.connected().iter().any(|id| id == runner_id) {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        runners::left(&mut tx, runner_id).await?;
        tx.commit().await
    }

    /// It is there.
    ///
    /// # Errors
    /// See [`Self::runner_told`].
    pub async fn runner_seen(&self, runner_id: &str) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        runners::seen(&mut tx, runner_id, clock::now_micros()).await?;
        tx.commit().await
    }

    /// A word of the engine about a bot's container.
    ///
    /// # Errors
    /// See [`Self::runner_told`].
    pub async fn engine_said(
        &self,
        runner_id: &str,
        bot_id: &str,
        word: &str,
        exit_code: Option<i64>,
    ) -> Result<(), StoreError> {
        if word.is_empty() {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        if !lives_with(&mut tx, bot_id, runner_id).await? {
            return Ok(());
        }
        let event = BotEventRow {
            id: id::new(id::Kind::BotEvent),
            bot_id: bot_id.to_owned(),
            kind: BotEventKind::Engine,
            status: clean(&word.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect::<String>()),
            reason_code: String::new(),
            reason: String::new(),
            exit_code,
            at: clock::now_micros(),
        };
        bot_events::insert(&mut tx, &event).await?;
        tx.commit().await
    }

    /// Minutes of bots' containers.
    ///
    /// # Errors
    /// See [`Self::runner_told`].
    pub async fn minutes(&self, runner_id: &str, minutes: &[(String, Minute)]) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        for (bot_id, minute) in minutes {
            if lives_with(&mut tx, bot_id, runner_id).await? {
                bot_events::put_minute(&mut tx, bot_id, minute).await?;
            }
        }
        tx.commit().await
    }
}

async fn lives_with(conn: &mut Conn, bot_id: &str, runner_id: &str) -> Result<bool, StoreError> {
    let row = containers::get(conn, bot_id).await?;
    Ok(row.is_some_and(|row| row.runner_id.as_deref() == Some(runner_id)))
}
