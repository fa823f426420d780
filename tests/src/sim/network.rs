//! What is under way. Calls and answers may be lost, doubled and overtaken; a
//! stream keeps its order and ends as a whole.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use clawgate_shared::proto::node::{LeaseReply, LeaseRequest, ShipRequest, Update, Version};

use super::plan::{Plan, SECOND};
use super::rng::Rng;

/// Names one process of a node; never used twice.
pub type ProcessId = u64;

/// Who sent a call, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Index of its machine.
    pub machine: usize,
    /// Which process there.
    pub process: ProcessId,
    /// Never used twice.
    pub number: u64,
}

/// One message.
#[derive(Clone, Debug)]
pub enum Message {
    /// To the control plane.
    Trade(Call, LeaseRequest),
    /// Back.
    Traded(Call, LeaseReply),
    /// To the control plane.
    Ship(Call, ShipRequest),
    /// Back: the next position.
    Shipped(Call, u64),
    /// The call failed at the control plane.
    Refused(Call),
    /// To the control plane: a stream opens. Its `number` names the stream.
    Hello(Call, Option<Version>),
    /// To the node.
    Update(Call, Box<Update>),
    /// To the control plane: served, or refused.
    Answer(Call, Version, bool),
    /// The control plane notices that a stream has ended.
    GoneAtControl(u64),
    /// The node notices that its stream has ended.
    GoneAtNode(Call),
}

impl Message {
    fn machine(&self) -> Option<usize> {
        match self {
            Self::Trade(call, _) | Self::Traded(call, _) | Self::Ship(call, _) | Self::Shipped(call, _) => {
                Some(call.machine)
            }
            Self::Refused(call) | Self::Hello(call, _) | Self::Update(call, _) | Self::Answer(call, ..) => {
                Some(call.machine)
            }
            // Noticing needs no network.
            Self::GoneAtControl(_) | Self::GoneAtNode(_) => None,
        }
    }
}

/// Everything that is under way.
#[derive(Debug, Default)]
pub struct Network {
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    messages: BTreeMap<u64, Message>,
    last: u64,
    /// When the last message of a stream arrives.
    streams: BTreeMap<u64, i64>,
    /// Machines that are cut off.
    pub cut: Vec<bool>,
}

impl Network {
    /// A number that was never given.
    pub const fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Puts a message under way that arrives at `at`.
    pub fn at(&mut self, at: i64, message: Message) {
        let number = self.number();
        self.queue.push(Reverse((at, number)));
        self.messages.insert(number, message);
    }

    /// Sends a call or an answer.
    pub fn send(&mut self, now: i64, plan: &Plan, rng: &mut Rng, message: Message) {
        if rng.chance(plan.twice) {
            self.at(now + delay(plan, rng), message.clone());
        }
        if !rng.chance(plan.lose) {
            self.at(now + delay(plan, rng), message);
        }
    }

    /// Sends on a stream.
    pub fn stream(&mut self, now: i64, rng: &mut Rng, stream: u64, message: Message) {
        let last = self.streams.get(&stream).copied().unwrap_or(0);
        let at = last.max(now + rng.range(100, 20_000));
        self.streams.insert(stream, at);
        self.at(at, message);
    }

    /// The control plane notices the end of a stream: not before it has heard what
    /// was sent on it.
    pub fn gone(&mut self, at: i64, stream: u64) {
        let last = self.streams.get(&stream).copied().unwrap_or(0);
        self.at(at.max(last), Message::GoneAtControl(stream));
    }

    /// The next message that has arrived by `now`, and when.
    pub fn arrived(&mut self, now: i64) -> Option<(i64, Message)> {
        loop {
            let Reverse((at, _)) = self.queue.peek()?;
            if *at > now {
                return None;
            }
            let Reverse((at, number)) = self.queue.pop()?;
            let message = self.messages.remove(&number)?;
            let cut = message.machine().is_some_and(|machine| self.cut.get(machine) == Some(&true));
            if !cut {
                return Some((at, message));
            }
        }
    }
}

fn delay(plan: &Plan, rng: &mut Rng) -> i64 {
    if rng.chance(plan.late) { rng.range(1, 40 * SECOND) } else { rng.range(100, 30_000) }
}
