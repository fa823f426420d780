//! The control plane: its real decisions between tables in memory. It may die
//! at any commit, before it or after it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clawgate_control::grpc::quota as wire;
use clawgate_control::quota::book::Book;
use clawgate_control::quota::desk::Desk;
use clawgate_control::quota::{Books, Claim, Holder, Quotas, end, learning, trade, window};
use clawgate_control::snapshot::assemble::{Assembled, quota};
use clawgate_control::snapshot::history::{History, Published};
use clawgate_control::snapshot::rollout::{Rollout, SessionId};
use clawgate_control::snapshot::session::Session;
use clawgate_control::store::quota_leases::LeaseRow;
use clawgate_control::store::quota_windows::{WindowChange, WindowKey};
use clawgate_control::store::quotas::QuotaRow;
use clawgate_shared::content::Content;
use clawgate_shared::mutant::{self, Mutant};
use clawgate_shared::proto::node::{LeaseReply, LeaseRequest, Resource, Settings, Version, resource::Body};
use tokio::time::Instant;

use super::network::{Call, Message};
use super::plan::SECOND;
use super::tables::Tables;
use super::world::Env;
use super::{Broken, check};

/// How often leases are looked through, in microseconds; as `jobs` does.
const LEASES: i64 = 10 * SECOND;
/// Backups that are kept.
const BACKUPS: usize = 3;

/// A control plane, dead or alive, and its database.
#[derive(Default)]
pub struct Control {
    /// What is committed.
    pub tables: Tables,
    /// Alive.
    pub process: Option<Process>,
    backups: Vec<Tables>,
    /// Its wall clock, against the true time.
    pub skew: i64,
    next_job: i64,
    /// What nodes were told before the last change.
    previous: Option<Arc<Published>>,
}

/// What a process keeps in memory.
pub struct Process {
    pub(super) quotas: Quotas,
    pub(super) rollout: Rollout,
    pub(super) book: Arc<Book>,
    history: History,
    streams: BTreeMap<u64, Stream>,
    /// What its streams count time from.
    began: Instant,
}

/// One open stream to a node.
struct Stream {
    call: Call,
    id: SessionId,
    session: Session,
}

/// How a transaction ended.
pub(super) enum End<T> {
    /// It is committed, and this is the answer.
    Answer(T),
    /// It was refused.
    Refused,
    /// The process died.
    Died,
}

impl Control {
    /// Its wall clock.
    #[must_use]
    pub const fn clock(&self, now: i64) -> i64 {
        now + self.skew
    }

    /// The process starts.
    pub fn start(&mut self, env: &mut Env) {
        let (until, note) =
            learning::decide(self.tables.learning.as_deref(), self.tables.revision.generation, self.clock(env.now));
        if note.is_some() {
            self.tables.learning = note;
        }
        let quotas = Quotas { books: Books::default(), desk: Desk::default(), learning_until: until };
        let mut process = Process {
            quotas,
            rollout: Rollout::default(),
            book: Arc::new(book(&self.tables, env.plan.zone)),
            history: History::default(),
            streams: BTreeMap::new(),
            began: Instant::now(),
        };
        process.history.push(Arc::new(published(&self.tables)));
        self.process = Some(process);
        env.say(|| "control: starts".to_owned());
    }

    /// The process dies; what is committed stays.
    pub fn die(&mut self, env: &mut Env) {
        let Some(process) = self.process.take() else { return };
        for (_, stream) in process.streams {
            let at = env.now + env.rng.range(100, 15 * SECOND);
            env.network.at(at, Message::GoneAtNode(stream.call));
        }
        env.say(|| "control: dies".to_owned());
    }

    /// Ends a transaction: commits it, unless the process dies before, and
    /// answers, unless it dies after.
    pub(super) fn commit<T>(&mut self, env: &mut Env, tx: Tables, answer: T) -> Result<End<T>, Broken> {
        let dies = env.rng.chance(env.plan.crash);
        if dies && env.rng.chance(500) {
            self.die(env);
            env.say(|| "control: died before the commit".to_owned());
            let answers = mutant::is(Mutant::AckBeforeCommit);
            return Ok(if answers { End::Answer(answer) } else { End::Died });
        }
        self.tables = tx;
        check::books(&self.tables, &env.truth, self.clock(env.now))?;
        if dies {
            self.die(env);
            env.say(|| "control: died after the commit".to_owned());
            return Ok(End::Died);
        }
        Ok(End::Answer(answer))
    }

    /// A node trades; the order of things is that of `quota::trade::trade`.
    pub(super) fn trade(&mut self, env: &mut Env, request: LeaseRequest) -> Result<End<LeaseReply>, Broken> {
        let now = self.clock(env.now);
        let Some(process) = &self.process else { return Ok(End::Died) };
        let holder = Holder { node_id: &request.node_id, epoch: i64::try_from(request.epoch).unwrap_or(i64::MAX) };
        let claims: Vec<Claim> = request.claims.into_iter().map(wire::claim).collect();
        let mut tx = self.tables.clone();
        if trade::is_over(tx.shards(holder)) {
            return Ok(End::Refused);
        }
        let unnamed = trade::unnamed(&process.book, &process.quotas.desk, holder, &claims, now);
        let unnamed = tx.leases(holder, &unnamed);
        let mut call = trade::Call::new(&process.book, &process.quotas, holder, (&claims, unnamed), now);
        let keys = call.keys();
        call.read(tx.windows(&keys), tx.leases(holder, &keys));
        let changing = call.changing();
        if changing.is_empty() {
            return Ok(End::Answer(wire::reply(call.answers(), now)));
        }
        let keys: Vec<WindowKey> = changing.iter().map(|change| change.key.clone()).collect();
        let locked = tx.settle_windows(&changing);
        let leases = tx.leases(holder, &keys);
        let (shifts, grants) = call.decide(locked, leases, &keys);
        tx.shift(&shifts);
        let had_room = tx.grant(&grants);
        let granted: Vec<WindowKey> = had_room.iter().map(|row| row.key.clone()).collect();
        tx.write_leases(&call.written(&had_room));
        check::grants(&tx, &granted)?;
        let reply = wire::reply(call.answers(), now);
        self.commit(env, tx, reply)
    }

    /// Jobs that are due, and streams that have something to be told.
    ///
    /// # Errors
    /// The books are wrong after that.
    pub fn pump(&mut self, env: &mut Env) -> Result<(), Broken> {
        if self.process.is_none() {
            return Ok(());
        }
        if env.now >= self.next_job {
            self.next_job = env.now + LEASES;
            self.expire(env)?;
        }
        if let Some(process) = &mut self.process {
            process.tell(env);
        }
        Ok(())
    }

    /// As `quota::end::expire`.
    fn expire(&mut self, env: &mut Env) -> Result<(), Broken> {
        let now = self.clock(env.now);
        let learning_until = self.process.as_ref().map_or(0, |process| process.quotas.learning_until);
        let found = self.tables.expired(now);
        if found.is_empty() || !end::knows_times(learning_until, now) {
            return Ok(());
        }
        let mut tx = self.tables.clone();
        tx.settle_windows(&end::locks(&found));
        let (changes, rows) = end::taken_back(found.clone(), now);
        tx.shift(&changes);
        tx.write_leases(&rows);
        for lease in found.iter().filter(|lease| lease.rest() > 0) {
            // What was sent and not delivered for a whole hold time counts late.
            let epoch = u64::try_from(lease.epoch).unwrap_or(0);
            let machine = env.machine_of(&lease.node_id);
            let known = |id: &str| self.tables.events.contains_key(id);
            let late = env.truth.undelivered(machine, epoch, &lease.key, known);
            env.truth.allow(&lease.key, late.min(lease.rest()));
            env.say(|| format!("control: takes back {lease:?}, {late} of it undelivered"));
        }
        self.commit(env, tx, ()).map(drop)
    }

    /// An admin changes the limit of a quota, or grants something on top.
    pub fn change(&mut self, env: &mut Env) {
        let Some(process) = &mut self.process else { return };
        let now = self.tables.quotas.first().map_or(0, |_| env.now + self.skew);
        let quotas = Rc::make_mut(&mut self.tables.quotas);
        let at = env.rng.index(quotas.len());
        let Some(row) = quotas.get_mut(at) else { return };
        if env.rng.chance(500) {
            let limit = row.spec.limit * u64::try_from(env.rng.range(5, 20)).unwrap_or(10) / 10;
            row.spec.limit = limit.max(1);
            row.updated_at = now;
            self.tables.revision.revision += 1;
            env.truth.raise(&row.id, limit);
            env.say(|| format!("control: limit of {} is {limit}", row.id));
            let mut next = book(&self.tables, env.plan.zone);
            next.lowered_since(&process.book);
            process.book = Arc::new(next);
            self.previous = process.history.current().cloned();
            process.history.push(Arc::new(published(&self.tables)));
        } else {
            let span = window::containing(row.spec.window, now, &window::zone(env.plan.zone));
            let key = WindowKey { quota_id: row.id.clone(), start: span.start };
            let amount = env.rng.range(1, env.plan.limit);
            *env.truth.extra.entry(key.clone()).or_default() += amount;
            self.tables.extend(&WindowChange { key, end: span.end, amount });
        }
    }

    /// A backup is taken.
    pub fn back_up(&mut self) {
        if self.backups.len() >= BACKUPS {
            self.backups.remove(0);
        }
        self.backups.push(self.tables.clone());
    }

    /// The database is put back to a backup, as `clawgate control restore` does
    /// it: nodes must not take its revisions for ones they have seen.
    pub fn restore(&mut self, env: &mut Env) {
        if self.backups.is_empty() {
            return;
        }
        self.die(env);
        self.previous = None;
        let backup = self.backups[env.rng.index(self.backups.len())].clone();
        let live = std::mem::replace(&mut self.tables, backup);
        // Every restore has a generation of its own.
        self.tables.revision.generation = live.revision.generation + 1;
        for (key, row) in live.windows.iter() {
            let settled = self.tables.windows.get(key).map_or(0, |row| row.settled);
            // What was used and is not known any more may be used again.
            env.truth.allow(key, row.settled - settled);
        }
        for (key, lease) in live.leases.iter() {
            // So may what is lent and not known, until its node has named it;
            // what others gave back since may be named after that.
            let rest = self.tables.leases.get(key).map_or(0, LeaseRow::rest);
            env.truth.allow(&lease.key, lease.rest() - rest);
        }
        for (id, exchange) in &mut env.truth.exchanges {
            let was = live.events.contains_key(id) || live.opens.contains_key(id);
            exchange.forgotten |= was && !self.tables.events.contains_key(id);
        }
        env.truth.losses = true;
        env.say(|| "control: is put back to a backup".to_owned());
    }

    /// A node's stream opens.
    pub(super) fn hello(&mut self, env: &mut Env, call: Call, have: Option<Version>) {
        let node = env.node_id(call.machine);
        let Some(process) = &mut self.process else {
            return env.network.at(env.now + SECOND, Message::GoneAtNode(call));
        };
        let instance = super::instance(call.process);
        process.streams.retain(|_, old| old.call.process != call.process);
        let id = process.rollout.connect(&node, &instance, "", have.clone());
        let known = have.as_ref().and_then(|have| process.history.find(&have.hash)).cloned();
        let mut session = Session::new(have, known);
        if env.rng.chance(env.plan.change) {
            // Another replica, which has not heard of the last change yet.
            if let Some(update) = self.previous.as_ref().and_then(|older| session.next(older, process.began)) {
                env.network.stream(env.now, &mut env.rng, call.number, Message::Update(call, Box::new(update)));
            }
        }
        process.streams.insert(call.number, Stream { call, id, session });
    }

    /// A stream has ended.
    pub(super) fn gone(&mut self, stream: u64) {
        let Some(process) = &mut self.process else { return };
        if let Some(stream) = process.streams.remove(&stream) {
            process.rollout.disconnect(stream.id);
        }
    }

    /// A node answers to an update.
    pub(super) fn answered(&mut self, call: Call, version: &Version, served: bool) {
        let Some(process) = &mut self.process else { return };
        let Some(stream) = process.streams.get_mut(&call.number) else { return };
        if served {
            stream.session.ack(version);
        } else {
            stream.session.nack(version);
        }
    }

    /// What is left of the window that has the least left now.
    #[must_use]
    pub fn least_left(&self, now: i64) -> i64 {
        let Some(process) = &self.process else { return 0 };
        let left = |row: &QuotaRow| {
            let quota = process.book.get(&row.id)?;
            let key = WindowKey { quota_id: row.id.clone(), start: quota.window_at(self.clock(now)).start };
            let (extra, taken) =
                self.tables.windows.get(&key).map_or((0, 0), |row| (row.extra, row.settled + row.outstanding));
            Some(quota.limit + extra - taken)
        };
        self.tables.quotas.iter().filter_map(left).min().unwrap_or(0)
    }

    /// What every node should serve.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.process.as_ref()?.history.current().map(|published| published.version.clone())
    }
}

impl Process {
    /// Sends every stream what it is to be told.
    fn tell(&mut self, env: &mut Env) {
        let Some(target) = self.history.current().cloned() else { return };
        let since = Duration::from_micros(u64::try_from(env.now - env.plan.begin).unwrap_or(0));
        for (number, stream) in &mut self.streams {
            if let Some(update) = stream.session.next(&target, self.began + since) {
                let message = Message::Update(stream.call, Box::new(update));
                env.network.stream(env.now, &mut env.rng, *number, message);
            }
        }
    }
}

fn book(tables: &Tables, zone: &str) -> Book {
    let rows: Vec<QuotaRow> = tables.quotas.to_vec();
    let zones = rows.iter().map(|row| (row.tenant_id.clone(), window::zone(zone))).collect::<HashMap<_, _>>();
    Book::new(tables.revision.revision.to_string(), rows, &zones)
}

/// What nodes are told of these tables.
fn published(tables: &Tables) -> Published {
    let mut content = Content::default();
    let settings = Body::Settings(Settings::default());
    let quotas = tables.quotas.iter().cloned().map(quota).map(|(id, body)| (id, Body::Quota(body)));
    for (id, body) in quotas.chain([("settings".to_owned(), settings)]) {
        content.upsert(Resource { id, body: Some(body) }).expect("a known kind");
    }
    Published::new(Assembled { revision: tables.revision, content, ..Assembled::default() })
}
