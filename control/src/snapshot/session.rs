//! One node's stream, without IO: what it holds, what it was sent, what it is
//! sent next.
//!
//! One update is on its way at a time, against what the node last acked. A
//! change that is refused is followed by the full snapshot once, which heals a
//! node whose base is not what we think; a refused full snapshot is not sent
//! again until there is a newer one.

use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::proto::node::{Update, Version};
use tokio::time::Instant;

use super::history::{Published, update};

/// A node that has not answered for so long is sent the next snapshot anyway,
/// in full.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What an answer of the node means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It serves the version.
    Serves,
    /// It refused the version for good.
    Refuses,
    /// It could not take the change; the full snapshot follows.
    Retry,
    /// About something that is not on its way.
    Stale,
}

struct InFlight {
    published: Arc<Published>,
    full: bool,
    since: Instant,
}

/// The state of one stream.
#[derive(Default)]
pub struct Session {
    held: Option<(Version, Arc<Published>)>,
    in_flight: Option<InFlight>,
    refused: Option<Version>,
}

impl Session {
    /// A node that says it has `have`, which is `known` as a recent content.
    #[must_use]
    pub fn new(have: Option<Version>, known: Option<Arc<Published>>) -> Self {
        Self { held: have.zip(known), ..Self::default() }
    }

    /// What to send now, if anything; it counts as on its way then.
    pub fn next(&mut self, target: &Arc<Published>, now: Instant) -> Option<Update> {
        if let Some(sent) = &self.in_flight {
            let late = now.duration_since(sent.since) >= ANSWER_TIMEOUT;
            if !late || sent.published.version == target.version {
                return None;
            }
            self.held = None;
        }
        let served = self.held.as_ref().map(|(version, _)| version);
        if served == Some(&target.version) || self.refused.as_ref() == Some(&target.version) {
            return None;
        }
        let base = self.held.as_ref().map(|(version, published)| (version, &published.content));
        let full = base.is_none();
        let update = update(target, base);
        self.in_flight = Some(InFlight { published: Arc::clone(target), full, since: now });
        Some(update)
    }

    /// The node serves `version`.
    pub fn ack(&mut self, version: &Version) -> Answer {
        match self.in_flight.take_if(|sent| sent.published.version == *version) {
            Some(sent) => {
                self.held = Some((version.clone(), sent.published));
                self.refused = None;
                Answer::Serves
            }
            None => Answer::Stale,
        }
    }

    /// The node refused `version` and serves what it had.
    pub fn nack(&mut self, version: &Version) -> Answer {
        match self.in_flight.take_if(|sent| sent.published.version == *version) {
            Some(sent) if sent.full => {
                self.refused = Some(version.clone());
                Answer::Refuses
            }
            Some(_) => {
                self.held = None;
                Answer::Retry
            }
            None => Answer::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::assemble::Assembled;
    use crate::snapshot::fixture;
    use crate::store::revisions::Revision;

    fn published(revision: u64) -> Arc<Published> {
        let mut parts = fixture::parts();
        parts.bot.hostname = format!("host-{revision}");
        Arc::new(Published::new(Assembled {
            revision: Revision { generation: 1, revision },
            content: parts.content(),
            ..Assembled::default()
        }))
    }

    #[test]
    fn full_then_deltas_one_at_a_time() {
        let (one, two, three) = (published(1), published(2), published(3));
        let mut session = Session::new(None, None);
        let now = Instant::now();
        assert!(session.next(&one, now).is_some_and(|update| update.base.is_none()));
        assert!(session.next(&two, now).is_none(), "the first is still on its way");
        assert_eq!(session.ack(&two.version), Answer::Stale);
        assert_eq!(session.ack(&one.version), Answer::Serves);
        let delta = session.next(&three, now).expect("behind");
        assert_eq!(delta.base.as_ref(), Some(&one.version));
        assert_eq!(delta.upserts.len(), 1);
        assert_eq!(session.ack(&three.version), Answer::Serves);
        assert!(session.next(&three, now).is_none());
    }

    #[test]
    fn a_refused_change_is_followed_by_the_full_snapshot_once() {
        let (one, two, three) = (published(1), published(2), published(3));
        let mut session = Session::new(Some(one.version.clone()), Some(one.clone()));
        let now = Instant::now();
        assert!(session.next(&two, now).is_some_and(|update| update.base.is_some()));
        assert_eq!(session.nack(&two.version), Answer::Retry);
        assert!(session.next(&two, now).is_some_and(|update| update.base.is_none()));
        assert_eq!(session.nack(&two.version), Answer::Refuses);
        assert!(session.next(&two, now).is_none());
        assert!(session.next(&three, now).is_some_and(|update| update.base.is_none()));
    }

    #[test]
    fn a_silent_node_is_sent_the_next_one_in_full() {
        let (one, two) = (published(1), published(2));
        let mut session = Session::new(None, None);
        let start = Instant::now();
        assert!(session.next(&one, start).is_some());
        assert!(session.next(&two, start + ANSWER_TIMEOUT / 2).is_none());
        assert!(session.next(&one, start + ANSWER_TIMEOUT).is_none());
        assert!(session.next(&two, start + ANSWER_TIMEOUT).is_some_and(|update| update.base.is_none()));
        assert_eq!(session.ack(&one.version), Answer::Stale);
        assert_eq!(session.ack(&two.version), Answer::Serves);
    }
}
