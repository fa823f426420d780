//! Models of one key that are to be left alone, each until its time. Pure.

/// Models that are remembered at one time. A further one takes the place of the
/// one that is over first.
pub const MODELS: usize = 32;
/// Longest model name that is remembered, in bytes; no vendor has a longer one.
const MAX_MODEL: usize = 128;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Pauses(Vec<Pause>);

#[derive(Clone, Debug)]
struct Pause {
    model: Box<str>,
    /// When it was said last.
    since: i64,
    until: i64,
}

impl Pauses {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: i64) {
        self.0.retain(|pause| pause.until > now);
    }

    /// What is left of a model's pause; `None`: it has none.
    pub(super) fn left(&self, model: &str, now: i64) -> Option<i64> {
        let pause = self.0.iter().find(|pause| *pause.model == *model && pause.until > now)?;
        Some(pause.until.saturating_sub(now))
    }

    /// All of them, each with its end.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|pause| (pause.model.as_ref(), pause.until))
    }

    /// Leaves `model` alone until then, or until the later time that is known.
    /// Whether it had no pause before.
    pub(super) fn add(&mut self, model: &str, until: i64, now: i64) -> bool {
        if model.len() > MAX_MODEL {
            return false;
        }
        if let Some(known) = self.0.iter_mut().find(|pause| *pause.model == *model) {
            known.until = until.max(known.until);
            known.since = now;
            return false;
        }
        self.expire(now);
        if self.0.len() >= MODELS {
            let soonest = self.0.iter().enumerate().min_by_key(|(_, pause)| pause.until).map(|(at, _)| at);
            if let Some(at) = soonest {
                self.0.swap_remove(at);
            }
        }
        self.0.push(Pause { model: model.into(), since: now, until });
        true
    }

    /// What was sent at `sent` shows that `model` need not be left alone any more.
    /// What was sent before the pause was last spoken of shows nothing.
    pub(super) fn end(&mut self, model: &str, sent: i64) {
        self.0.retain(|pause| *pause.model != *model || sent < pause.since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_end_stays_and_what_was_sent_before_ends_nothing() {
        let mut pauses = Pauses::default();
        assert!(pauses.add("m", 100, 10) && !pauses.add("m", 50, 20));
        assert_eq!((pauses.left("m", 40), pauses.left("n", 40), pauses.left("m", 100)), (Some(60), None, None));
        pauses.end("m", 19);
        pauses.end("n", 99);
        assert_eq!(pauses.left("m", 40), Some(60));
        pauses.end("m", 20);
        assert!(pauses.is_empty());
    }

    #[test]
    fn the_soonest_makes_room() {
        let mut pauses = Pauses::default();
        for number in 0..=MODELS {
            assert!(pauses.add(&format!("m{number}"), 100 + i64::try_from(number).expect("small"), 0));
        }
        assert_eq!((pauses.iter().count(), pauses.left("m0", 0)), (MODELS, None));
        assert!(!pauses.add(&"m".repeat(MAX_MODEL + 1), 500, 0));
    }
}
