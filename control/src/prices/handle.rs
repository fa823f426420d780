//! The table that is in use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::table::Table;
use crate::store::{Db, StoreError, prices};

/// How often a process looks whether another one has changed prices.
const LOOK: Duration = Duration::from_secs(5);

/// The table in use; swapped when prices change.
#[derive(Debug)]
pub struct Prices {
    current: watch::Sender<Arc<Table>>,
}

impl Prices {
    /// Loads the table as it is now.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn load(db: &Db) -> Result<Self, StoreError> {
        Ok(Self { current: watch::Sender::new(Arc::new(read(db).await?)) })
    }

    /// The table in use.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.current.borrow())
    }

    /// Takes up what was committed since.
    ///
    /// # Errors
    /// As the database answers; the table in use stays.
    pub async fn refresh(&self, db: &Db) -> Result<(), StoreError> {
        let version = prices::version(&mut *db.read().await?).await?;
        if self.current.borrow().version() != version {
            self.current.send_replace(Arc::new(read(db).await?));
        }
        Ok(())
    }
}

/// Rows and version of one moment.
async fn read(db: &Db) -> Result<Table, StoreError> {
    let mut tx = db.snapshot().await?;
    let version = prices::version(&mut tx).await?;
    let rows = prices::all(&mut tx).await?;
    tx.commit().await?;
    Ok(Table::new(version, rows))
}

/// Takes up what other processes change, until `stop` is true.
pub async fn watch_for_changes(prices: &Prices, db: &Db, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {
                if let Err(error) = prices.refresh(db).await {
                    tracing::warn!(%error, "prices were not read again; those in use stay");
                }
            }
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}
