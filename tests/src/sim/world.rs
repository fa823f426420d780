//! The whole: what happens next, and what comes of it.

use std::rc::Rc;

use clawgate_control::store::quotas::QuotaRow;
use clawgate_control::store::revisions::Revision;
use clawgate_control::store::types::{
    QuotaAction, QuotaMetric, QuotaMode, QuotaOnExceed, QuotaOnOutage, QuotaScope, QuotaSpec,
};
use clawgate_proxy::metering::spool::memory_disk::{DiskError, Operation};

use super::control::{Control, End};
use super::network::{Message, Network};
use super::node::Machine;
use super::plan::{Plan, SECOND};
use super::rng::Rng;
use super::truth::{Kept, Truth};
use super::{Broken, check, instance};

/// Nodes of the fleet.
const NODES: usize = 3;
/// What must be left of a window for all nodes to have some, also while grants
/// are cautious.
const ENOUGH: i64 = 64;
/// Whose quotas are at stake.
pub const TENANT: &str = "ten_1";
/// Who asks.
pub const BOT: &str = "bot_1";

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were admitted.
    pub admitted: u64,
    /// Of them, those that were counted.
    pub counted: u64,
    /// Of them, those whose end nobody saw.
    pub indeterminate: u64,
}

/// What everything shares.
pub struct Env {
    /// The true time, unix microseconds.
    pub now: i64,
    /// Chance.
    pub rng: Rng,
    /// What this seed does.
    pub plan: Plan,
    /// What really happened.
    pub truth: Truth,
    /// What is under way.
    pub network: Network,
    /// Sums.
    pub tally: Tally,
    trace: Option<Vec<String>>,
    nodes: Vec<String>,
}

impl Env {
    /// Notes a step, if anybody wants to read it.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let since = self.now - self.plan.begin;
            trace.push(format!("{:>5}.{:06} {}", since / SECOND, since % SECOND, what()));
        }
    }

    /// The machine of a node.
    #[must_use]
    pub fn machine_of(&self, node_id: &str) -> usize {
        self.nodes.iter().position(|id| id == node_id).unwrap_or(usize::MAX)
    }

    /// The node of a machine.
    #[must_use]
    pub fn node_id(&self, machine: usize) -> String {
        self.nodes.get(machine).cloned().unwrap_or_default()
    }
}

/// Everything there is.
pub struct World {
    pub(super) env: Env,
    pub(super) control: Control,
    pub(super) machines: Vec<Machine>,
    /// A machine that is a copy of another one.
    zombie: Option<Machine>,
}

impl World {
    /// The world of a seed at its beginning.
    #[must_use]
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::of(&mut rng);
        let nodes: Vec<String> = (0..NODES).map(|node| format!("node_{node:032x}")).collect();
        let machines = nodes.iter().enumerate();
        let machines = machines.map(|(index, id)| Machine::new(index, id.clone(), rng.next())).collect();
        let mut network = Network::default();
        network.cut = vec![false; NODES + 1];
        let trace = trace.then(Vec::new);
        let (truth, tally) = (Truth::default(), Tally::default());
        let mut env = Env { now: plan.begin, rng, plan, truth, network, tally, trace, nodes };
        let mut control = Control::default();
        control.tables.revision = Revision { generation: 1, revision: 1 };
        let kinds = env.plan.windows.clone();
        let quotas: Vec<QuotaRow> = kinds.iter().enumerate().map(|(at, _)| quota(&env.plan, at, kinds.len())).collect();
        quotas.iter().for_each(|row| env.truth.raise(&row.id, row.spec.limit));
        control.tables.quotas = Rc::new(quotas);
        Self { env, control, machines, zombie: None }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> (Result<Tally, Broken>, Vec<String>) {
        let plan = self.env.plan.clone();
        self.env.say(|| format!("{plan:?}"));
        let result = self.live();
        if let Err(broken) = &result {
            let broken = broken.to_string();
            self.env.say(|| broken);
        }
        let events = &self.control.tables.events;
        let mut tally = self.env.tally;
        tally.counted = events.len() as u64;
        tally.indeterminate = events.values().filter(|event| event.row.indeterminate).count() as u64;
        (result.map(|()| tally), self.env.trace.take().unwrap_or_default())
    }

    fn live(&mut self) -> Result<(), Broken> {
        for _ in 0..self.env.plan.steps {
            let pause = self.env.plan.pause;
            let wait = match self.env.rng.below(100) {
                _ if self.env.rng.chance(pause) => {
                    self.env.rng.range(60 * SECOND, 17 * 60 * SECOND) / self.env.plan.slow
                }
                0..70 => self.env.rng.range(500, 100_000),
                70..95 => self.env.rng.range(100_000, 2 * SECOND),
                _ => self.env.rng.range(2 * SECOND, 40 * SECOND),
            };
            self.pass(wait * self.env.plan.slow)?;
            self.trouble();
            for _ in 0..1 + self.env.rng.below(4) {
                self.work()?;
            }
        }
        self.rest()
    }

    /// Time passes: messages arrive, and what goes on by itself goes on.
    fn pass(&mut self, wait: i64) -> Result<(), Broken> {
        let until = self.env.now + wait;
        while let Some((at, message)) = self.env.network.arrived(until) {
            self.tick(at.max(self.env.now));
            self.deliver(message)?;
        }
        self.tick(until);
        self.control.pump(&mut self.env)?;
        for machine in self.machines.iter_mut().chain(&mut self.zombie) {
            machine.give_up(until);
            machine.pump(&mut self.env)?;
        }
        Ok(())
    }

    fn tick(&mut self, now: i64) {
        self.env.now = now;
        for machine in self.machines.iter().chain(&self.zombie) {
            machine.clocks.tick(now, self.env.plan.begin);
        }
    }

    fn deliver(&mut self, message: Message) -> Result<(), Broken> {
        let env = &mut self.env;
        let reply = match message {
            Message::Trade(call, request) => match self.control.trade(env, request)? {
                End::Answer(reply) => Message::Traded(call, reply),
                End::Refused => Message::Refused(call),
                End::Died => return Ok(()),
            },
            Message::Ship(call, request) => match self.control.ship(env, &request)? {
                End::Answer(next) => Message::Shipped(call, next),
                End::Refused => Message::Refused(call),
                End::Died => return Ok(()),
            },
            Message::Hello(call, have) => {
                self.control.hello(env, call, have);
                return Ok(());
            }
            Message::Answer(call, version, served) => {
                self.control.answered(call, &version, served);
                return Ok(());
            }
            Message::GoneAtControl(stream) => {
                self.control.gone(stream);
                return Ok(());
            }
            to_node => return self.deliver_to_node(to_node),
        };
        let Env { now, plan, rng, network, .. } = env;
        network.send(*now, plan, rng, reply);
        Ok(())
    }

    fn deliver_to_node(&mut self, message: Message) -> Result<(), Broken> {
        let env = &mut self.env;
        let (Message::Traded(call, _)
        | Message::Shipped(call, _)
        | Message::Refused(call)
        | Message::Update(call, _)
        | Message::GoneAtNode(call)) = &message
        else {
            return Ok(());
        };
        let (call, all) = (*call, self.machines.iter_mut().chain(&mut self.zombie));
        let Some(machine) = all.into_iter().find(|machine| machine.index == call.machine) else { return Ok(()) };
        if let Message::Update(call, update) = message {
            return machine.update(env, call, *update);
        }
        let boot = machine.clocks.boot(env.now);
        let Some(process) = machine.processes.iter_mut().find(|process| process.number == call.process) else {
            return Ok(());
        };
        match message {
            Message::Traded(_, reply) => process.traded(env, boot, call, Some(reply)),
            Message::Shipped(_, next) => process.shipped(env, call, Some(next))?,
            Message::Refused(_) => {
                process.traded(env, boot, call, None);
                process.shipped(env, call, None)?;
            }
            _ => {
                process.stream.take_if(|stream| *stream == call);
            }
        }
        Ok(())
    }

    /// What clients and vendors do.
    fn work(&mut self) -> Result<(), Broken> {
        let env = &mut self.env;
        let at = env.rng.index(NODES);
        let machine = &mut self.machines[at];
        if env.rng.chance(400) {
            let amount = env.rng.range(1, env.plan.most + 1);
            return machine.admit(env, amount);
        }
        let busy: Vec<usize> =
            (0..machine.processes.len()).filter(|process| !machine.processes[*process].requests.is_empty()).collect();
        if busy.is_empty() {
            return Ok(());
        }
        let process = env.rng.pick(&busy);
        let request = env.rng.index(machine.processes[process].requests.len());
        if env.rng.chance(500) {
            return machine.send(env, process, request);
        }
        let known = env.rng.chance(800);
        machine.settle(env, process, request, known);
        Ok(())
    }

    /// What goes wrong, and what people do about it.
    fn trouble(&mut self) {
        let env = &mut self.env;
        if self.control.process.is_none() && env.rng.chance(200) {
            self.control.start(env);
        }
        let plan = env.plan.clone();
        let at = env.rng.index(NODES);
        let machine = &mut self.machines[at];
        if machine.processes.is_empty() {
            if env.rng.chance(300) {
                machine.start(env);
            }
        } else if env.rng.chance(plan.kill) {
            let process = env.rng.index(machine.processes.len());
            machine.kill(env, process);
        } else if env.rng.chance(plan.power) {
            machine.power_cut(env);
        } else if env.rng.chance(plan.handover) && machine.processes.len() == 1 {
            machine.start(env);
        }
        if env.rng.chance(plan.partition) {
            self.partition(at);
        }
        let env = &mut self.env;
        if env.rng.chance(plan.change) {
            self.control.change(env);
        }
        if plan.restore > 0 && env.rng.chance(20) {
            self.control.back_up();
        }
        if env.rng.chance(plan.restore) {
            self.control.restore(env);
        }
        if env.rng.chance(plan.clock) {
            let skew = env.rng.range(-60, 61) * SECOND;
            self.machines[at].clocks.set(skew);
            self.control.skew = env.rng.range(-30, 31) * SECOND;
            env.say(|| "clocks are set".to_owned());
        }
        if env.rng.chance(plan.disk) {
            self.disk_trouble(at);
        }
        if self.env.rng.chance(plan.zombie) {
            self.zombie();
        }
    }

    fn partition(&mut self, at: usize) {
        let (env, machine) = (&mut self.env, &mut self.machines[at]);
        let cut = !env.network.cut[at];
        env.network.cut[at] = cut;
        env.say(|| format!("machine {at}: cut off: {cut}"));
        for stream in machine.processes.iter().filter_map(|process| process.stream) {
            let (node, control) = (env.rng.range(0, 20 * SECOND), env.rng.range(0, 20 * SECOND));
            env.network.at(env.now + node, Message::GoneAtNode(stream));
            env.network.gone(env.now + control, stream.number);
        }
    }

    fn disk_trouble(&mut self, at: usize) {
        let (env, disk) = (&mut self.env, &self.machines[at].disk);
        match env.rng.below(5) {
            0 => disk.set_capacity(Some(env.rng.below(16 << 10))),
            1 => {
                // What is there of it, less than any record, stays until it is
                // written over.
                disk.tear_next_write(env.rng.index(60), DiskError::NoSpace);
                disk.fail(Operation::SetLen, DiskError::Io, 0, 1);
            }
            2 => disk.fail(Operation::Sync, DiskError::Io, 0, 1),
            3 => disk.fail(Operation::Write, DiskError::NoSpace, 0, 1 + u32::try_from(env.rng.below(3)).unwrap_or(0)),
            _ => {
                disk.set_capacity(None);
                disk.heal();
            }
        }
        env.say(|| format!("machine {at}: trouble with its disk"));
    }

    /// A copy of a machine starts beside it, or ends. Its original stays at the
    /// control plane all the time, and has told it of all its logs.
    fn zombie(&mut self) {
        let env = &mut self.env;
        if let Some(mut zombie) = self.zombie.take() {
            while !zombie.processes.is_empty() {
                zombie.kill(env, 0);
            }
            return;
        }
        let Some(control) = &self.control.process else { return };
        let machine = &self.machines[env.rng.index(NODES)];
        let Some(process) = machine.processes.first() else { return };
        let (node, epoch) = (machine.node_id.clone(), i64::try_from(process.spool.epoch()).unwrap_or(0));
        let (known, _) = self.control.tables.shards(clawgate_control::quota::Holder { node_id: &node, epoch });
        if !control.rollout.is_connected(&node, &instance(process.number)) || known < u64::from(env.plan.shards) {
            return;
        }
        env.say(|| format!("machine {NODES}: is a copy of machine {}", machine.index));
        let mut zombie = machine.copy(NODES, env.rng.next());
        env.nodes.truncate(NODES);
        env.nodes.push(node);
        zombie.start(env);
        self.zombie = Some(zombie);
    }

    /// All faults end, all requests end, and everything comes to rest.
    fn rest(&mut self) -> Result<(), Broken> {
        if self.zombie.is_some() {
            self.zombie();
        }
        self.env.say(|| "everything heals".to_owned());
        self.env.plan.heal();
        for at in 0..NODES {
            if self.env.network.cut[at] {
                self.partition(at);
            }
            let machine = &mut self.machines[at];
            machine.disk.heal();
            machine.disk.set_capacity(None);
            for process in 0..machine.processes.len() {
                while !machine.processes[process].requests.is_empty() {
                    machine.settle(&mut self.env, process, 0, true);
                }
            }
            // An exchange whose end could not be written ends with its epoch.
            let ends = self.env.truth.exchanges.values().any(|one| one.machine == at && one.settle != Kept::Yes);
            if ends || machine.processes.last().is_none_or(|process| !process.serves()) {
                machine.start(&mut self.env);
            }
        }
        if self.control.process.is_none() {
            self.control.start(&mut self.env);
        }
        for wait in [SECOND; 40].into_iter().chain([20 * SECOND; 60]) {
            self.pass(wait)?;
        }
        check::at_rest(self)?;
        // A restored database has forgotten what nodes have used: they pay it off.
        if self.env.plan.restore > 0 { Ok(()) } else { self.serve() }
    }

    /// Nothing is refused that is left: every node gets some of every window
    /// that has some.
    fn serve(&mut self) -> Result<(), Broken> {
        for at in 0..NODES {
            let (before, most) = (self.env.tally.admitted, 12);
            for _ in 0..most {
                if self.control.least_left(self.env.now) < ENOUGH {
                    return Ok(());
                }
                self.machines[at].admit(&mut self.env, 1)?;
                if self.env.tally.admitted > before {
                    break;
                }
                self.pass(SECOND)?;
            }
            if self.env.tally.admitted == before {
                let windows = &self.control.tables.windows;
                return Err(Broken::new("what is left is not refused", format!("machine {at}: {windows:?}")));
            }
            // It is not sent in time, and so goes back.
            self.pass(60 * SECOND)?;
        }
        Ok(())
    }
}

fn quota(plan: &Plan, at: usize, count: usize) -> QuotaRow {
    let requests = at == 2 || (count == 2 && at == 1 && plan.limit % 2 == 0);
    let limit = if requests { plan.limit / plan.most * 3 } else { plan.limit };
    let spec = QuotaSpec {
        metric: if requests { QuotaMetric::Requests } else { QuotaMetric::TotalTokens },
        window: plan.windows[at],
        limit: u64::try_from(limit).unwrap_or(1).max(1),
        model: None,
        action: QuotaAction::Block,
        warn_pct: 80,
        mode: QuotaMode::Strict,
        on_exceed: QuotaOnExceed::Refuse,
        on_outage: QuotaOnOutage::Deny,
    };
    let (scope, scope_id) = if at == 0 { (QuotaScope::Bot, BOT) } else { (QuotaScope::Tenant, TENANT) };
    QuotaRow {
        id: format!("quo_{at:032x}"),
        tenant_id: TENANT.into(),
        scope,
        scope_id: scope_id.into(),
        spec,
        ordering: 0,
        created_at: plan.begin,
        updated_at: plan.begin,
    }
}
