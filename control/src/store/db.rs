//! Connections. Writers queue for one connection on SQLite; on PostgreSQL they
//! have a pool of their own, so that slow reads never starve a write.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection as _, Transaction};

use super::dialect;
use super::error::StoreError;

/// How long a caller waits for a connection before [`StoreError::Busy`].
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const SQLITE_READERS: u32 = 4;
const POSTGRES_READERS: u32 = 8;
const POSTGRES_WRITERS: u32 = 8;

/// Which database this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One file.
    Sqlite,
    /// A server.
    Postgres,
}

/// An open database; cheap to clone.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    file: Option<PathBuf>,
    writers: AnyPool,
    readers: AnyPool,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("engine", &self.inner.engine).finish_non_exhaustive()
    }
}

/// A connection, inside a transaction or not.
pub type Conn = AnyConnection;

/// A transaction; rolled back when dropped without [`Tx::commit`].
pub struct Tx {
    inner: Transaction<'static, Any>,
}

/// A pooled connection outside a transaction; each statement sees its own moment.
pub struct ReadConn {
    inner: PoolConnection<Any>,
}

impl Db {
    /// Opens `sqlite://PATH` (created with mode 0600 when missing) or
    /// `postgres://…`. Does not touch the schema; see [`super::migrate`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file or the server cannot be opened.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let (engine, file, url) = resolve(url)?;
        let options = AnyConnectOptions::from_str(&url)
            .map_err(|_| StoreError::Unavailable("the database URL cannot be read".into()))?;
        let (writer_count, reader_count) = match engine {
            Engine::Sqlite => (1, SQLITE_READERS),
            Engine::Postgres => (POSTGRES_WRITERS, POSTGRES_READERS),
        };
        // The writer first: it turns a new file to WAL before readers come.
        let failed = |error: sqlx::Error| match (StoreError::from(error), engine) {
            // The pool tries again for as long as it may wait.
            (StoreError::Busy, Engine::Postgres) => StoreError::Unavailable("the server does not answer".into()),
            (error, _) => error,
        };
        let writers = pool(engine, writer_count).connect_with(options.clone()).await.map_err(failed)?;
        let readers = pool(engine, reader_count).connect_with(options).await.map_err(failed)?;
        Ok(Self { inner: Arc::new(Inner { engine, file, writers, readers }) })
    }

    /// Which engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.inner.engine
    }

    /// The database file of SQLite.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.inner.file.as_deref()
    }

    /// Starts a writing transaction.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the write lock is not had in 5 s.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let begin = dialect::begin_write(self.inner.engine);
        Ok(Tx { inner: self.inner.writers.begin_with(begin).await? })
    }

    /// Starts a reading transaction whose statements all see one moment.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn snapshot(&self) -> Result<Tx, StoreError> {
        let begin = dialect::begin_snapshot(self.inner.engine);
        Ok(Tx { inner: self.inner.readers.begin_with(begin).await? })
    }

    /// A connection for single reads.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when none is free within 5 s.
    pub async fn read(&self) -> Result<ReadConn, StoreError> {
        Ok(ReadConn { inner: self.inner.readers.acquire().await? })
    }

    /// A connection of the writers outside a transaction, for statements that
    /// refuse one (`VACUUM`).
    pub(super) async fn writer(&self) -> Result<ReadConn, StoreError> {
        Ok(ReadConn { inner: self.inner.writers.acquire().await? })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// As its answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.read().await?.inner.ping().await?)
    }

    /// Closes every connection; on SQLite this folds the write-ahead log in.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writers.close().await;
    }
}

impl Tx {
    /// Makes it durable.
    ///
    /// # Errors
    /// Nothing was changed then, unless the connection was lost meanwhile.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }

    /// Undoes it, now instead of at drop.
    ///
    /// # Errors
    /// The connection was lost; nothing was changed then either.
    pub async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.inner.rollback().await?)
    }
}

impl Deref for Tx {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

impl Deref for ReadConn {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for ReadConn {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

fn pool(engine: Engine, max: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(max)
        .min_connections(u32::from(engine == Engine::Sqlite))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout((engine == Engine::Postgres).then_some(Duration::from_secs(300)))
        .max_lifetime((engine == Engine::Postgres).then_some(Duration::from_secs(1800)))
        .test_before_acquire(engine == Engine::Postgres)
        .after_connect(move |conn, _| {
            Box::pin(async move {
                for statement in dialect::session_setup(engine) {
                    sqlx::raw_sql(*statement).execute(&mut *conn).await?;
                }
                Ok(())
            })
        })
}

/// Engine, file and the URL as the driver wants it. A SQLite path becomes
/// absolute and escaped, so that no character of it is taken for URL syntax.
fn resolve(url: &str) -> Result<(Engine, Option<PathBuf>, String), StoreError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok((Engine::Postgres, None, url.to_owned()));
    }
    let path = url
        .strip_prefix("sqlite://")
        .filter(|path| !path.is_empty())
        .ok_or_else(|| StoreError::Unavailable("a database URL starts with sqlite:// or postgres://".into()))?;
    let file = std::path::absolute(path).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    create_private(&file)?;
    let text = file.to_str().ok_or_else(|| StoreError::Unavailable("the database path is not UTF-8".into()))?;
    let mut escaped = String::from("sqlite://");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok((Engine::Sqlite, Some(file), escaped))
}

/// SQLite gives its side files the mode of the main file.
fn create_private(file: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)
        .map(drop)
        .map_err(|error| StoreError::Unavailable(format!("{}: {error}", file.display())))
}
