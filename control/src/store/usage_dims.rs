//! Texts that many exchanges share, each combination once, named by a number.
//!
//! Rows of `usage_dims` and `usage_origins` are added and never changed or
//! removed, so that what a process remembers of them stays true. It remembers
//! only what was committed.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_ingest::{EventRow, Shard, Statements, query};

/// Most combinations that are remembered; beyond, memory starts anew.
const MAX_KNOWN: usize = 1 << 17;
/// Bytes of a digest.
const DIGEST: usize = 16;

/// The numbers of one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What it is summed up by.
    pub dims: Dims,
    /// Where it comes from.
    pub origin: i64,
}

/// What an exchange is summed up by, and found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dims {
    /// All of it.
    pub exchange: i64,
    /// Without bot and key.
    pub model: i64,
    /// Project and key only.
    pub key: i64,
    /// Project, bot and labels only.
    pub bot: i64,
    /// The tenant's number.
    pub tenant: i64,
    /// The bot's number within its tenant.
    pub caller: i64,
}

/// What a process remembers.
#[derive(Debug, Default)]
pub struct Known {
    inner: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    dims: HashMap<Box<str>, Dims>,
    origins: HashMap<Box<str>, i64>,
}

/// What was looked up or added; to be remembered after the commit.
#[derive(Debug, Default)]
pub struct Fresh {
    dims: Vec<(Box<str>, Dims)>,
    origins: Vec<(Box<str>, i64)>,
}

impl Known {
    /// Remembers what is committed now.
    pub fn keep(&self, fresh: Fresh) {
        if fresh.dims.is_empty() && fresh.origins.is_empty() {
            return;
        }
        let mut memory = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.dims.len() + fresh.dims.len() > MAX_KNOWN {
            memory.dims.clear();
        }
        if memory.origins.len() + fresh.origins.len() > MAX_KNOWN {
            memory.origins.clear();
        }
        memory.dims.extend(fresh.dims);
        memory.origins.extend(fresh.origins);
    }
}

/// The kinds of `usage_dims` besides `exchange`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Key,
    Bot,
    Tenant,
    Caller,
}

/// One row that must be there.
struct Wanted<'a> {
    kind: &'static str,
    /// tenant, project, bot, labels, vendor, model, key, outcome
    texts: [&'a str; 8],
    status: i64,
    parents: [Option<i64>; 3],
}

impl<'a> Wanted<'a> {
    fn exchange(event: &'a EventRow, dims: Dims) -> Self {
        let open = &event.open;
        let texts: [&str; 8] = [
            &open.tenant_id,
            &open.project_id,
            &open.bot_id,
            &event.labels,
            &open.vendor,
            &open.model,
            &open.provider_key_id,
            &event.outcome,
        ];
        let parents = [Some(dims.model), Some(dims.key), Some(dims.bot)];
        Self { kind: "exchange", texts, status: event.status_code, parents }
    }

    /// Leaves out what the kind does not tell apart.
    fn wider(event: &'a EventRow, kind: Kind) -> Self {
        let [tenant, project, bot, labels, vendor, model, key, outcome] = Self::exchange(event, Dims::default()).texts;
        let none = "";
        let (kind, texts, status) = match kind {
            Kind::Model => ("model", [tenant, project, none, none, vendor, model, none, outcome], event.status_code),
            Kind::Key => ("key", [tenant, project, none, none, none, none, key, none], 0),
            Kind::Bot => ("bot", [tenant, project, bot, labels, none, none, none, none], 0),
            Kind::Tenant => ("tenant", [tenant, none, none, none, none, none, none, none], 0),
            Kind::Caller => ("caller", [tenant, none, bot, none, none, none, none, none], 0),
        };
        Self { kind, texts, status, parents: [None; 3] }
    }

    fn digest(&self) -> Vec<u8> {
        let mut key = self.kind.to_owned();
        join(&mut key, &self.texts, &[self.status]);
        digest(&key)
    }
}

/// NUL is in no stored text.
fn join(out: &mut String, texts: &[&str], numbers: &[i64]) {
    for text in texts {
        out.push('\0');
        out.push_str(text);
    }
    for number in numbers {
        let _infallible = write!(out, "\0{number}");
    }
}

fn digest(key: &str) -> Vec<u8> {
    Sha256::digest(key.as_bytes()).iter().copied().take(DIGEST).collect()
}

fn dims_key(out: &mut String, event: &EventRow) {
    let wanted = Wanted::exchange(event, Dims::default());
    out.clear();
    join(out, &wanted.texts, &[wanted.status]);
}

fn origin_texts<'a>(shard: Shard<'a>, event: &'a EventRow) -> [&'a str; 5] {
    let open = &event.open;
    [shard.node_id, &event.usage_source, &open.config_version, &event.price_ref, &event.error_code]
}

fn origin_key(out: &mut String, shard: Shard<'_>, event: &EventRow) {
    out.clear();
    join(out, &origin_texts(shard, event), &[shard.epoch, shard.shard, i64::from(event.open.stream)]);
}

static INSERT_DIMS: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        "INSERT INTO usage_dims (digest, kind, tenant_id, project_id, bot_id, labels, vendor, model, \
         provider_key_id, outcome, status_code, model_dim, key_dim, bot_dim) VALUES ",
        14,
        " ON CONFLICT DO NOTHING",
    )
});
static SELECT_DIMS: LazyLock<Lookup> = LazyLock::new(|| Lookup::new("usage_dims"));
static INSERT_ORIGINS: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        "INSERT INTO usage_origins (digest, node_id, usage_source, config_version, price_ref, error_code, epoch, \
         shard, stream) VALUES ",
        9,
        " ON CONFLICT DO NOTHING",
    )
});
static SELECT_ORIGINS: LazyLock<Lookup> = LazyLock::new(|| Lookup::new("usage_origins"));

/// The numbers of each event of one shard; what is new is added.
///
/// # Errors
/// As the database answers.
pub async fn places(
    conn: &mut AnyConnection,
    known: &Known,
    shard: Shard<'_>,
    events: &[EventRow],
) -> Result<(Vec<Place>, Fresh), StoreError> {
    let (mut places, mut dims, mut origins) = (Vec::with_capacity(events.len()), BTreeMap::new(), BTreeMap::new());
    let (mut key, mut missing) = (String::new(), Vec::new());
    {
        let memory = known.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            dims_key(&mut key, event);
            let found = memory.dims.get(key.as_str()).copied();
            if found.is_none() && !dims.contains_key(key.as_str()) {
                dims.insert(key.clone(), event);
            }
            origin_key(&mut key, shard, event);
            let origin = memory.origins.get(key.as_str()).copied();
            if origin.is_none() && !origins.contains_key(key.as_str()) {
                origins.insert(key.clone(), event);
            }
            if found.is_none() || origin.is_none() {
                missing.push(places.len());
            }
            places.push(Place { dims: found.unwrap_or_default(), origin: origin.unwrap_or_default() });
        }
    }
    if missing.is_empty() {
        return Ok((places, Fresh::default()));
    }
    let dims = add_dims(conn, dims).await?;
    let origins = add_origins(conn, shard, origins).await?;
    for at in missing {
        let (Some(place), Some(event)) = (places.get_mut(at), events.get(at)) else { continue };
        dims_key(&mut key, event);
        place.dims = dims.get(key.as_str()).copied().unwrap_or(place.dims);
        origin_key(&mut key, shard, event);
        place.origin = origins.get(key.as_str()).copied().unwrap_or(place.origin);
    }
    let boxed = |key: String| key.into_boxed_str();
    Ok((
        places,
        Fresh {
            dims: dims.into_iter().map(|(key, dims)| (boxed(key), dims)).collect(),
            origins: origins.into_iter().map(|(key, id)| (boxed(key), id)).collect(),
        },
    ))
}

async fn add_dims(
    conn: &mut AnyConnection,
    missing: BTreeMap<String, &EventRow>,
) -> Result<HashMap<String, Dims>, StoreError> {
    const WIDER: [Kind; 5] = [Kind::Model, Kind::Key, Kind::Bot, Kind::Tenant, Kind::Caller];
    let wider = missing.values().flat_map(|event| WIDER.map(|kind| Wanted::wider(event, kind)));
    let ids = ensure_dims(conn, wider).await?;
    let mut all = HashMap::with_capacity(missing.len());
    let mut exchanges = Vec::with_capacity(missing.len());
    for (key, event) in missing {
        let of = |kind| id_of(&ids, &Wanted::wider(event, kind).digest());
        let dims = Dims {
            exchange: 0,
            model: of(Kind::Model)?,
            key: of(Kind::Key)?,
            bot: of(Kind::Bot)?,
            tenant: of(Kind::Tenant)?,
            caller: of(Kind::Caller)?,
        };
        let wanted = Wanted::exchange(event, dims);
        all.insert(key.clone(), dims);
        exchanges.push((key, wanted.digest(), wanted));
    }
    let digests: Vec<(String, Vec<u8>)> =
        exchanges.iter().map(|(key, digest, _)| (key.clone(), digest.clone())).collect();
    let ids = ensure_dims(conn, exchanges.into_iter().map(|(_, _, wanted)| wanted)).await?;
    for (key, digest) in digests {
        if let Some(dims) = all.get_mut(&key) {
            dims.exchange = id_of(&ids, &digest)?;
        }
    }
    Ok(all)
}

fn id_of(ids: &HashMap<Vec<u8>, i64>, digest: &[u8]) -> Result<i64, StoreError> {
    ids.get(digest)
        .copied()
        .ok_or_else(|| StoreError::corrupt("usage_dims.digest", "a row that was added is not there"))
}

/// Rows go in by the order of their digests, so that two writers on PostgreSQL
/// never wait for each other in a circle.
async fn ensure_dims<'a>(
    conn: &mut AnyConnection,
    wanted: impl Iterator<Item = Wanted<'a>>,
) -> Result<HashMap<Vec<u8>, i64>, StoreError> {
    let wanted: BTreeMap<Vec<u8>, Wanted<'a>> = wanted.map(|wanted| (wanted.digest(), wanted)).collect();
    let digests: Vec<Vec<u8>> = wanted.keys().cloned().collect();
    let mut ids = select(conn, &SELECT_DIMS, &digests).await?;
    let new: Vec<(&Vec<u8>, &Wanted<'a>)> = wanted.iter().filter(|(digest, _)| !ids.contains_key(*digest)).collect();
    if new.is_empty() {
        return Ok(ids);
    }
    for (sql, run) in INSERT_DIMS.runs(conn, &new) {
        let bound = run.iter().fold(query(sql), |query, (digest, row)| {
            let query = query.bind((*digest).clone()).bind(row.kind);
            let query = row.texts.iter().fold(query, |query, text| query.bind((*text).to_owned()));
            row.parents.iter().fold(query.bind(row.status), |query, parent| query.bind(*parent))
        });
        bound.execute(&mut *conn).await?;
    }
    let added: Vec<Vec<u8>> = new.iter().map(|(digest, _)| (*digest).clone()).collect();
    ids.extend(select(conn, &SELECT_DIMS, &added).await?);
    Ok(ids)
}

async fn add_origins(
    conn: &mut AnyConnection,
    shard: Shard<'_>,
    missing: BTreeMap<String, &EventRow>,
) -> Result<HashMap<String, i64>, StoreError> {
    let wanted: BTreeMap<Vec<u8>, (String, &EventRow)> =
        missing.into_iter().map(|(key, event)| (digest(&key), (key, event))).collect();
    let digests: Vec<Vec<u8>> = wanted.keys().cloned().collect();
    let mut ids = select(conn, &SELECT_ORIGINS, &digests).await?;
    let new: Vec<(&Vec<u8>, &EventRow)> = wanted
        .iter()
        .filter(|(digest, _)| !ids.contains_key(*digest))
        .map(|(digest, (_, event))| (digest, *event))
        .collect();
    for (sql, run) in INSERT_ORIGINS.runs(conn, &new) {
        let bound = run.iter().fold(query(sql), |query, (digest, event)| {
            let query = query.bind((*digest).clone());
            let query = origin_texts(shard, event).iter().fold(query, |query, text| query.bind((*text).to_owned()));
            query.bind(shard.epoch).bind(shard.shard).bind(i64::from(event.open.stream))
        });
        bound.execute(&mut *conn).await?;
    }
    let added: Vec<Vec<u8>> = new.iter().map(|(digest, _)| (*digest).clone()).collect();
    ids.extend(select(conn, &SELECT_ORIGINS, &added).await?);
    wanted.into_iter().map(|(digest, (key, _))| Ok((key, id_of(&ids, &digest)?))).collect()
}

/// How rows of a table are found by their digests. PostgreSQL gets one array:
/// it compares a long list with every row of the table.
struct Lookup {
    list: Statements,
    array: Arc<str>,
}

impl Lookup {
    fn new(table: &str) -> Self {
        let head = format!("SELECT id, digest FROM {table} WHERE digest IN (");
        Self {
            list: Statements::new(&head, 1, ")"),
            array: Arc::from(format!("{head}SELECT decode(x, 'hex') FROM UNNEST(CAST($1 AS TEXT[])) AS x)")),
        }
    }
}

async fn select(
    conn: &mut AnyConnection,
    lookup: &Lookup,
    digests: &[Vec<u8>],
) -> Result<HashMap<Vec<u8>, i64>, StoreError> {
    let mut ids = HashMap::with_capacity(digests.len());
    if digests.is_empty() {
        return Ok(ids);
    }
    let mut rows = Vec::new();
    if conn.backend_name() == "SQLite" {
        for (sql, run) in lookup.list.runs(conn, digests) {
            let bound = run.iter().fold(query(sql), |query, digest| query.bind(digest.clone()));
            rows.extend(bound.fetch_all(&mut *conn).await?);
        }
    } else {
        let hex = |digest: &Vec<u8>| digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let array = format!("{{{}}}", digests.iter().map(hex).collect::<Vec<_>>().join(","));
        rows = query(Arc::clone(&lookup.array)).bind(array).fetch_all(conn).await?;
    }
    for row in rows {
        ids.insert(row.bytes("digest")?, row.int("id")?);
    }
    Ok(ids)
}
