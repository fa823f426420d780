//! A machine with its disk and clocks, and the processes of a node on it.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgate_proxy::limits::{QuotaRule, Slices};
use clawgate_proxy::metering::spool::disk::Clock;
use clawgate_proxy::metering::spool::memory_disk::{MemoryDisk, Survival};
use clawgate_proxy::metering::{Spool, SpoolOptions};
use clawgate_proxy::snapshot::cache::Saved;
use clawgate_proxy::snapshot::quota_rule;
use clawgate_proxy::sync::{Activate, Outcome, Session};
use clawgate_shared::proto::node::{Update, Version, resource::Body};

use super::control::Control;
use super::network::{Call, Message, ProcessId};
use super::plan::SECOND;
use super::request::Request;
use super::ship::Calls;
use super::world::Env;
use super::{Broken, instance};

/// How often a process looks for epochs of dead ones; as the shipper does.
const ADOPT: i64 = 5 * SECOND;
/// How long a process that was replaced delivers at most.
const LINGER: i64 = 30 * SECOND;

/// The clocks of one machine.
#[derive(Debug, Default)]
pub struct Clocks {
    wall: AtomicI64,
    /// Wall against the true time.
    skew: AtomicI64,
    /// Of the boot clock, against the true time.
    boot: AtomicI64,
    monotonic: AtomicI64,
}

impl Clock for Clocks {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.monotonic.load(Ordering::Relaxed)).unwrap_or(0))
    }

    fn unix_micros(&self) -> i64 {
        self.wall.load(Ordering::Relaxed)
    }
}

impl Clocks {
    pub(super) fn tick(&self, now: i64, begin: i64) {
        self.wall.store(now + self.skew.load(Ordering::Relaxed), Ordering::Relaxed);
        self.monotonic.store(now - begin, Ordering::Relaxed);
    }

    pub(super) fn set(&self, skew: i64) {
        self.skew.store(skew, Ordering::Relaxed);
    }

    pub(super) fn wall(&self) -> i64 {
        self.wall.load(Ordering::Relaxed)
    }

    pub(super) fn boot(&self, now: i64) -> i64 {
        now + self.boot.load(Ordering::Relaxed)
    }
}

/// One machine.
pub struct Machine {
    pub(super) index: usize,
    /// Of its node.
    pub(super) node_id: String,
    pub(super) disk: MemoryDisk,
    pub(super) clocks: Arc<Clocks>,
    /// The last known good configuration.
    saved: Option<Saved>,
    /// The newest last.
    pub(super) processes: Vec<Process>,
    /// Records that a power cut may take.
    pub(super) unsynced: Unsynced,
}

/// A record: of which epoch and exchange, and whether it is a SETTLE.
type Written = (u64, String, bool);

/// Records that a power cut may take.
#[derive(Default)]
pub struct Unsynced {
    /// Until their process syncs.
    new: Vec<Written>,
    /// Their sync has failed, and there is no second one.
    doubtful: Vec<Written>,
}

impl Unsynced {
    pub(super) fn add(&mut self, epoch: u64, id: &str, settle: bool) {
        self.new.push((epoch, id.to_owned(), settle));
    }

    /// A process has tried to sync what it wrote.
    fn synced(&mut self, epoch: u64, failed: bool) {
        let (own, others) = std::mem::take(&mut self.new).into_iter().partition(|(of, ..)| *of == epoch);
        self.new = others;
        if failed {
            self.doubtful.extend::<Vec<Written>>(own);
        }
    }
}

/// One process of a node.
pub struct Process {
    pub(super) number: ProcessId,
    disk: MemoryDisk,
    pub(super) spool: Spool,
    pub(super) slices: Arc<Slices>,
    pub(super) rules: Arc<Mutex<Vec<Arc<QuotaRule>>>>,
    session: Session,
    /// Its stream to the control plane.
    pub(super) stream: Option<Call>,
    pub(super) requests: Vec<Request>,
    pub(super) calls: Calls,
    next_adoption: i64,
    /// It was replaced, and takes no more requests; since when.
    draining: Option<i64>,
    closed: bool,
}

impl Machine {
    pub(super) fn new(index: usize, node_id: String, seed: u64) -> Self {
        Self {
            index,
            node_id,
            disk: MemoryDisk::new(seed),
            clocks: Arc::default(),
            saved: None,
            processes: Vec::new(),
            unsynced: Unsynced::default(),
        }
    }

    /// A second machine that thinks it is the same node.
    pub(super) fn copy(&self, index: usize, seed: u64) -> Self {
        let disk = self.disk.copy(seed);
        Self { index, disk, clocks: self.clocks.clone(), ..Self::new(index, self.node_id.clone(), seed) }
    }

    /// A new process begins. It may fail for want of disk.
    pub(super) fn start(&mut self, env: &mut Env) {
        env.say(|| format!("{}: its disk has {:?}", self.name(), self.disk.files()));
        let disk = self.disk.process();
        let options =
            SpoolOptions { shards: env.plan.shards, limit_bytes: env.plan.spool_bytes, segment_bytes: 8 << 10 };
        let opened = Spool::open_on(Arc::new(disk.clone()), self.clocks.clone(), Path::new("/spool"), options);
        let Ok(spool) = opened else { return disk.kill() };
        let (slices, rules) = (Arc::new(Slices::default()), Arc::default());
        let mut session = Session::new(activate(&slices, &rules));
        if let Some(saved) = self.saved.clone()
            && session.restore(saved).is_err()
        {
            return disk.kill();
        }
        let number = env.network.number();
        env.say(|| format!("{}: process {number} starts, epoch {}", self.name(), spool.epoch()));
        for old in &mut self.processes {
            old.draining.get_or_insert(env.now);
        }
        self.processes.push(Process {
            number,
            disk,
            spool,
            slices,
            rules,
            session,
            stream: None,
            requests: Vec::new(),
            calls: Calls::default(),
            next_adoption: env.now,
            draining: None,
            closed: false,
        });
    }

    pub(super) fn name(&self) -> String {
        format!("machine {}", self.index)
    }

    /// The process at `at` dies; what it had in memory is gone.
    pub(super) fn kill(&mut self, env: &mut Env, at: usize) {
        let process = self.processes.remove(at);
        env.say(|| format!("{}: process {} dies", self.name(), process.number));
        process.disk.kill();
        if let Some(stream) = process.stream {
            let gone = env.now + env.rng.range(100, 10 * SECOND);
            env.network.gone(gone, stream.number);
        }
    }

    /// The power goes: all processes die, and what was not synced is lost.
    pub(super) fn power_cut(&mut self, env: &mut Env) {
        while !self.processes.is_empty() {
            self.kill(env, 0);
        }
        let survival = if env.rng.chance(300) { Survival::Synced } else { Survival::Random };
        self.disk.power_cut(survival);
        let Unsynced { new, doubtful } = std::mem::take(&mut self.unsynced);
        for (_, id, settle) in new.into_iter().chain(doubtful) {
            env.say(|| format!("{id}: perhaps lost, settle: {settle}"));
            env.truth.unsynced(&id, settle);
        }
        self.clocks.boot.store(env.rng.range(0, 1000 * SECOND), Ordering::Relaxed);
    }

    /// What goes on beside requests.
    pub(super) fn pump(&mut self, env: &mut Env) -> Result<(), Broken> {
        for at in (0..self.processes.len()).rev() {
            self.background(env, at)?;
            if self.processes[at].is_done(env.now) {
                self.kill(env, at);
            }
        }
        Ok(())
    }

    fn background(&mut self, env: &mut Env, at: usize) -> Result<(), Broken> {
        let place = (self.index, self.clocks.boot(env.now));
        let process = &mut self.processes[at];
        if env.rng.chance(700) {
            process.sync(&mut self.unsynced);
        }
        if env.now >= process.next_adoption {
            process.next_adoption = env.now + ADOPT;
            let adopted = process.spool.adopt();
            let reaped = process.spool.reap();
            if !matches!(adopted, Ok(0)) || reaped.is_err() {
                env.say(|| format!("process {}: {adopted:?} epochs taken over, {reaped:?}", process.number));
            }
        }
        process.connect(env, place.0);
        if process.draining.is_some() && process.requests.is_empty() && !process.closed {
            process.closed = true;
            process.spool.close();
            process.sync(&mut self.unsynced);
        }
        process.trade(env, place, &self.node_id);
        process.ship(env, place.0, &self.node_id)
    }

    /// An update comes on its stream.
    pub(super) fn update(&mut self, env: &mut Env, call: Call, update: Update) -> Result<(), Broken> {
        let Some(process) = self.processes.iter_mut().find(|process| process.stream == Some(call)) else {
            return Ok(());
        };
        let before = process.session.held().map(|saved| saved.version.clone());
        let (version, served) = match process.session.on_update(update) {
            Outcome::Ack { version, .. } => (version, true),
            Outcome::Nack { version, .. } => (version, false),
        };
        if let Some(before) = before.filter(|before| served && order(&version) < order(before)) {
            return Err(Broken::new("versions go up", format!("{before:?} was served, now {version:?}")));
        }
        if served {
            self.saved = process.session.held().cloned();
            process.slices.forget_unused(self.clocks.boot(env.now));
        }
        let number = process.number;
        env.say(|| format!("process {number}: {} {served}", version.revision));
        env.network.stream(env.now, &mut env.rng, call.number, Message::Answer(call, version, served));
        Ok(())
    }

    /// What must hold once it has come to rest.
    pub(super) fn at_rest(&self, control: &Control) -> Result<(), Broken> {
        for process in &self.processes {
            let stats = process.spool.stats();
            if stats.records > 0 {
                let what = format!("process {}: {stats:?}", process.number);
                return Err(Broken::new("in the end cursors are at the last position", what));
            }
            if process.slices.any_lease() {
                let what = format!("process {} still has some", process.number);
                return Err(Broken::new("in the end leases are gone", what));
            }
            let served = process.session.held().map(|saved| saved.version.clone());
            if served != control.version() {
                let what = format!("process {}: {served:?}, not {:?}", process.number, control.version());
                return Err(Broken::new("in the end every node serves the last configuration", what));
            }
        }
        if self.processes.len() == 1 {
            return Ok(());
        }
        Err(Broken::new("in the end one process is left", format!("{}: {}", self.name(), self.processes.len())))
    }
}

impl Process {
    /// Whether it takes requests.
    pub(super) const fn serves(&self) -> bool {
        self.draining.is_none()
    }

    fn is_done(&self, now: i64) -> bool {
        let late = self.draining.is_some_and(|since| now - since > LINGER);
        (self.closed && self.spool.stats().records == 0) || late
    }

    /// Puts on disk what was appended.
    pub(super) fn sync(&self, unsynced: &mut Unsynced) {
        let before = self.spool.stats().sync_failures;
        self.spool.sync();
        unsynced.synced(self.spool.epoch(), self.spool.stats().sync_failures > before);
    }

    fn connect(&mut self, env: &mut Env, machine: usize) {
        if self.stream.is_some() || env.network.cut[machine] || env.rng.chance(500) {
            return;
        }
        let call = Call { machine, process: self.number, number: env.network.number() };
        self.stream = Some(call);
        let hello = Message::Hello(call, self.session.have());
        env.network.stream(env.now, &mut env.rng, call.number, hello);
    }

    /// What it says it is.
    pub(super) fn instance(&self) -> String {
        instance(self.number)
    }
}

const fn order(version: &Version) -> (u64, u64) {
    (version.generation, version.revision)
}

/// Makes a content the one that is served: its quotas, over the slices there are.
fn activate(slices: &Arc<Slices>, rules: &Arc<Mutex<Vec<Arc<QuotaRule>>>>) -> Activate {
    let (slices, rules) = (slices.clone(), rules.clone());
    Arc::new(move |content, _, _| {
        let mut found = Vec::new();
        for resource in content.iter() {
            let Some(Body::Quota(quota)) = &resource.body else { continue };
            let rule = quota_rule(quota, slices.of(&resource.id)).ok_or_else(|| vec!["a word".to_owned()])?;
            found.push(Arc::new(rule));
        }
        *rules.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    })
}
