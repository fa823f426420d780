//! What just happened, for whoever watches: the last events, and a stream.
//!
//! Who reconnects names the last event it saw and gets what came after it, if
//! that is still kept; otherwise it is told that it missed something.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clawgate_shared::clock;
use tokio::sync::broadcast;

/// Events that are kept for those who reconnect.
const KEPT: usize = 1024;

/// A bot's status changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotStatusEvent {
    /// Whose bot.
    pub tenant_id: String,
    /// Which.
    pub hostname: String,
    /// What it is now.
    pub status: &'static str,
    /// Why; empty: nothing to explain.
    pub reason_code: &'static str,
    /// Unix microseconds.
    pub at: i64,
}

/// One event with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveEvent {
    /// Counts from 1 in each process.
    pub number: u64,
    /// What happened.
    pub event: BotStatusEvent,
}

/// Keeps and tells.
#[derive(Debug)]
pub struct Live {
    /// Tells the events of this process from those of another.
    process: i64,
    kept: Mutex<VecDeque<LiveEvent>>,
    sender: broadcast::Sender<LiveEvent>,
}

/// What a watcher starts with.
#[derive(Debug)]
pub struct Watch {
    /// What came after the event that it named.
    pub missed: Vec<LiveEvent>,
    /// It named one that is no longer kept.
    pub gap: bool,
    /// What comes.
    pub stream: broadcast::Receiver<LiveEvent>,
}

impl Default for Live {
    fn default() -> Self {
        Self { process: clock::now_micros(), kept: Mutex::default(), sender: broadcast::channel(KEPT).0 }
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, VecDeque<LiveEvent>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody.
    pub fn tell(&self, event: BotStatusEvent) {
        let mut kept = self.lock();
        let number = kept.back().map_or(1, |last| last.number + 1);
        let event = LiveEvent { number, event };
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Nobody watching is no error.
        let _ = self.sender.send(event);
    }

    /// The text of an event's place, for `Last-Event-ID`.
    #[must_use]
    pub fn id(&self, event: &LiveEvent) -> String {
        format!("{}-{}", self.process, event.number)
    }

    /// Watches from the event after the one that is named.
    #[must_use]
    pub fn watch(&self, last: Option<&str>) -> Watch {
        let kept = self.lock();
        let stream = self.sender.subscribe();
        let Some(last) = last else { return Watch { missed: Vec::new(), gap: false, stream } };
        let number = last
            .split_once('-')
            .filter(|(process, _)| *process == self.process.to_string())
            .and_then(|(_, number)| number.parse::<u64>().ok());
        let first = kept.front().map_or(1, |event| event.number);
        let Some(number) = number.filter(|number| number + 1 >= first) else {
            return Watch { missed: kept.iter().cloned().collect(), gap: true, stream };
        };
        Watch { missed: kept.iter().filter(|event| event.number > number).cloned().collect(), gap: false, stream }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(hostname: &str) -> BotStatusEvent {
        BotStatusEvent {
            tenant_id: "ten_1".into(),
            hostname: hostname.into(),
            status: "running",
            reason_code: "",
            at: 0,
        }
    }

    #[test]
    fn who_reconnects_gets_what_it_missed_or_is_told() {
        let live = Live::default();
        assert!(!live.watch(None).gap);
        for name in ["a", "b", "c"] {
            live.tell(event(name));
        }
        let all = live.watch(Some("1-7"));
        assert!(all.gap && all.missed.len() == 3, "another process");
        let first = live.id(&all.missed[0]);
        let watch = live.watch(Some(&first));
        let names: Vec<&str> = watch.missed.iter().map(|event| event.event.hostname.as_str()).collect();
        assert_eq!((watch.gap, names), (false, vec!["b", "c"]));
        for _ in 0..KEPT {
            live.tell(event("x"));
        }
        let watch = live.watch(Some(&first));
        assert!(watch.gap && watch.missed.len() == KEPT);
        assert!(live.watch(Some("rubbish")).gap);
    }
}
