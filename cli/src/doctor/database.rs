//! Checks of the database, by the control plane's own code: reachable, schema,
//! master key, and whether the usage sums are the sums of the events.

use clawgate_control::config::ControlConfig;
use clawgate_control::store::{Db, StoreError, migrate, provider_keys, usage_proof};
use clawgate_control::vault::{Vault, VaultError};

use super::Verdict;
use crate::files::DataDir;

/// How far back sums are compared with events.
const HOURS: i64 = 7 * 24;
const HOUR: i64 = 3_600_000_000;
/// How many differing sums are counted.
const LIMIT: i64 = 100;

/// Names of the checks, in order.
const NAMES: [&str; 3] = ["database", "master key", "usage sums"];

/// Examines the database of this configuration.
pub(super) async fn all(control: Option<&ControlConfig>, data: &DataDir) -> Vec<(&'static str, Verdict)> {
    let verdicts = match control {
        None => vec![Verdict::Skipped("the configuration is not usable".to_owned())],
        Some(config) => examine(config, data).await,
    };
    let missing = std::iter::repeat_with(|| Verdict::Skipped("needs a usable database".to_owned()));
    NAMES.into_iter().zip(verdicts.into_iter().chain(missing)).collect()
}

async fn examine(config: &ControlConfig, data: &DataDir) -> Vec<Verdict> {
    // Opening would make the file, and this command makes nothing.
    if let Some(path) = config.database_url.strip_prefix("sqlite://")
        && !std::path::Path::new(path).exists()
    {
        return vec![Verdict::Skipped("no database yet: the first start makes it".to_owned())];
    }
    let db = match Db::connect(&config.database_url).await {
        Ok(db) => db,
        Err(e) => return vec![unreachable(&e)],
    };
    let mut verdicts = vec![schema(&db).await];
    if matches!(verdicts.as_slice(), [Verdict::Fine(_)]) {
        verdicts.push(master_key(&db, config, data).await);
        verdicts.push(sums(&db).await);
    }
    db.close().await;
    verdicts
}

fn unreachable(error: &StoreError) -> Verdict {
    let repair = match error {
        StoreError::Busy => "end the process that holds the database, or wait until it is done",
        _ => "check --database-url, that the server runs, and the rights of this user",
    };
    Verdict::broken(error.to_string(), repair)
}

async fn schema(db: &Db) -> Verdict {
    match migrate::pending(db).await {
        Ok(pending) if pending.is_empty() => Verdict::Fine("reachable, its schema is of this release".to_owned()),
        Ok(pending) => Verdict::doubtful(
            format!("these migrations are not applied: {}", pending.join(", ")),
            "run `clawgate migrate`, or start the control plane: it applies them",
        ),
        Err(e @ StoreError::Busy) => unreachable(&e),
        Err(e) => Verdict::broken(e.to_string(), "start the release that wrote this database, or restore a copy"),
    }
}

async fn master_key(db: &Db, config: &ControlConfig, data: &DataDir) -> Verdict {
    let file = data.file("master.key");
    let given = config.master_key.as_ref().map(|key| key.as_str());
    if given.is_none() && !file.exists() {
        return match sealed_rows(db).await {
            Ok(0) => Verdict::Skipped("none yet: the first start makes it".to_owned()),
            Ok(rows) => Verdict::broken(
                format!("{rows} provider keys are sealed and the master key is missing"),
                format!("put it back into {}, or give it in CLAWGATE_MASTER_KEY_FILE", file.display()),
            ),
            Err(e) => unreachable(&e),
        };
    }
    match Vault::open(db, given, &file).await {
        Ok(_) => Verdict::Fine("opens what this database has sealed".to_owned()),
        Err(VaultError::Store(e)) => unreachable(&e),
        Err(e) => Verdict::broken(e.to_string(), "give the key that belongs to this database"),
    }
}

async fn sealed_rows(db: &Db) -> Result<usize, StoreError> {
    let mut conn = db.read().await?;
    Ok(provider_keys::all(&mut conn).await?.len())
}

async fn sums(db: &Db) -> Verdict {
    let this_hour = clawgate_shared::clock::now_micros().div_euclid(HOUR) * HOUR;
    let compared = async {
        let mut conn = db.snapshot().await?;
        usage_proof::mismatches(&mut conn, this_hour - HOURS * HOUR, this_hour + HOUR, LIMIT).await
    };
    match compared.await {
        Ok(differing) if differing.is_empty() => {
            Verdict::Fine("equal to the sum of the events of the last 7 days".to_owned())
        }
        Ok(differing) => Verdict::broken(
            format!("{} sums of usage differ from what they are the sum of", differing.len()),
            "keep a copy of the database and report this: it must not happen",
        ),
        Err(e) => unreachable(&e),
    }
}
