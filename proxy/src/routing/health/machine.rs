//! The state of one key. Pure: time comes in as an argument, in microseconds of
//! one monotonic clock.

use super::pauses::Pauses;
use super::registry::Report;
use super::signal::Signal;
use super::wait::LONGEST;

/// A probe that was begun is over after so long, whatever became of it.
const PROBE_ENDS: i64 = 15_000_000;

/// Where a key stands, apart from limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The vendor takes it, as far as is known.
    #[default]
    Active,
    /// The vendor refused it once; a probe will tell.
    Suspect,
    /// The vendor does not know it.
    Invalid,
    /// Its account has no credit.
    Exhausted,
}

impl Standing {
    /// As in REST, metrics and the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspect => "suspect",
            Self::Invalid => "invalid",
            Self::Exhausted => "exhausted",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Suspect, Self::Invalid, Self::Exhausted].into_iter().find(|it| it.as_str() == word)
    }
}

/// Whether a key may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Yes.
    Yes,
    /// After those that are well: by the vendor's word nothing is left of a limit
    /// for this model.
    Resting,
    /// After all others; `due`: one request may try it first.
    Last {
        /// See [`Machine::claim_trial`].
        due: bool,
    },
    /// No, but one request may try it.
    Trial,
    /// Not with this model, before so many microseconds have passed.
    Cooling(i64),
    /// No.
    No,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The vendor takes the key.
    Good,
    /// The vendor does not know it.
    Refused,
    /// Its account has no credit.
    Spent,
    /// Nothing that decides.
    Unclear,
}

/// One key's state.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Between two probes, and between two requests on trial.
    interval: i64,
    standing: Standing,
    /// What was sent before this says nothing about the state since.
    since: i64,
    next_probe: i64,
    next_trial: i64,
    /// When a probe last found it good.
    proven: Option<i64>,
    /// Models that the vendor refuses for a while.
    cooling: Pauses,
    /// Models of which the vendor said, when it answered, that it would refuse
    /// the next request.
    resting: Pauses,
}

impl Machine {
    /// An active key; `interval` in microseconds.
    #[must_use]
    pub fn new(interval: i64) -> Self {
        Self {
            interval,
            standing: Standing::Active,
            since: i64::MIN,
            next_probe: i64::MIN,
            next_trial: i64::MIN,
            proven: None,
            cooling: Pauses::default(),
            resting: Pauses::default(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Active, and nothing cools or rests.
    #[must_use]
    pub const fn is_calm(&self) -> bool {
        self.is_well() && self.resting.is_empty()
    }

    /// Active, and nothing cools.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        matches!(self.standing, Standing::Active) && self.cooling.is_empty()
    }

    /// Models that cool, each with its end.
    pub fn cooling(&self) -> impl Iterator<Item = (&str, i64)> {
        self.cooling.iter()
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: i64) {
        self.cooling.expire(now);
        self.resting.expire(now);
    }

    /// Whether a request for `model` may try it.
    #[must_use]
    pub fn admits(&self, model: &str, now: i64) -> Admits {
        if self.standing == Standing::Invalid {
            return Admits::No;
        }
        if let Some(left) = self.cooling.left(model, now) {
            return Admits::Cooling(left);
        }
        let due = now >= self.next_trial;
        match self.standing {
            Standing::Active if self.resting.left(model, now).is_some() => Admits::Resting,
            Standing::Active => Admits::Yes,
            Standing::Suspect => Admits::Last { due },
            Standing::Exhausted if due => Admits::Trial,
            Standing::Exhausted | Standing::Invalid => Admits::No,
        }
    }

    /// Takes the one trial of this interval: whether this request has it.
    pub fn claim_trial(&mut self, now: i64) -> bool {
        let due = matches!(self.standing, Standing::Suspect | Standing::Exhausted) && now >= self.next_trial;
        if due {
            self.next_trial = now.saturating_add(self.interval);
        }
        due
    }

    /// Takes up what an earlier process of this node knew. Who was refused is asked
    /// about at once: meanwhile that may have changed.
    pub fn recall(&mut self, report: &Report, now: i64) {
        for (model, until) in &report.cooling {
            let until = (*until).min(now.saturating_add(LONGEST));
            if until > now {
                self.cooling.add(model, until, now);
            }
        }
        self.become_(report.standing, now);
    }

    /// What an answer said; it was sent with this key at `sent`. Whether the
    /// standing changed or another model cools.
    pub fn hear(&mut self, signal: Signal, model: &str, sent: i64, now: i64) -> bool {
        match signal {
            Signal::Limited(wait) => return self.cooling.add(model, now.saturating_add(wait), now),
            // Nobody need know: no request is refused for it.
            Signal::UsedUp(wait) => _ = self.resting.add(model, now.saturating_add(wait), now),
            Signal::Good => self.resting.end(model, sent),
            Signal::Nothing | Signal::Refused | Signal::Spent => {}
        }
        if sent < self.since {
            return false;
        }
        match (signal, self.standing) {
            (Signal::Good | Signal::UsedUp(_), Standing::Suspect | Standing::Invalid | Standing::Exhausted) => {
                self.become_(Standing::Active, now)
            }
            (Signal::Refused, Standing::Active) => self.suspect(now),
            (Signal::Refused, Standing::Exhausted) => self.become_(Standing::Suspect, now),
            (Signal::Spent, Standing::Active | Standing::Suspect) => self.become_(Standing::Exhausted, now),
            _ => false,
        }
    }

    /// Another node found it `standing`. Whether that changed anything: an
    /// invalid one is asked about here too.
    pub fn told(&mut self, standing: Standing, now: i64) -> bool {
        match (standing, self.standing) {
            (Standing::Invalid, Standing::Active) => self.suspect(now),
            (Standing::Exhausted, Standing::Active) => self.become_(Standing::Exhausted, now),
            _ => false,
        }
    }

    /// Whether the vendor is to be asked about it now; who is told yes does it.
    pub fn claim_probe(&mut self, now: i64) -> bool {
        let due = matches!(self.standing, Standing::Suspect | Standing::Invalid) && now >= self.next_probe;
        if due {
            // Should the answer get lost, somebody asks again.
            self.next_probe = now.saturating_add(self.interval.max(PROBE_ENDS));
        }
        due
    }

    /// What a probe found. Whether the standing changed.
    pub fn probed(&mut self, verdict: Verdict, now: i64) -> bool {
        self.next_probe = now.saturating_add(self.interval);
        if !matches!(self.standing, Standing::Suspect | Standing::Invalid) {
            return false;
        }
        let found = match verdict {
            Verdict::Good => {
                self.proven = Some(now);
                Standing::Active
            }
            Verdict::Refused => Standing::Invalid,
            Verdict::Spent => Standing::Exhausted,
            Verdict::Unclear => return false,
        };
        found != self.standing && self.become_(found, now)
    }

    /// A key that was proven good lately is not asked about again: what its
    /// vendor answers with 401 is then the request's doing, and a bot could keep
    /// the key suspect otherwise.
    fn suspect(&mut self, now: i64) -> bool {
        let lately = self.proven.is_some_and(|at| now.saturating_sub(at) < self.interval);
        !lately && self.become_(Standing::Suspect, now)
    }

    fn become_(&mut self, standing: Standing, now: i64) -> bool {
        self.standing = standing;
        self.since = now;
        if standing == Standing::Suspect {
            self.next_probe = now;
        }
        self.next_trial = now.saturating_add(self.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::pauses::MODELS;
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: i64 = 30_000_000;

    fn in_state(standing: Standing) -> Machine {
        let mut machine = Machine::new(INTERVAL);
        match standing {
            Standing::Active => {}
            Standing::Suspect => _ = machine.hear(Signal::Refused, "m", 10, 10),
            Standing::Exhausted => _ = machine.hear(Signal::Spent, "m", 10, 10),
            Standing::Invalid => {
                machine.hear(Signal::Refused, "m", 10, 10);
                machine.probed(Verdict::Refused, 10);
            }
        }
        assert_eq!(machine.standing(), standing);
        machine
    }

    #[test]
    fn what_each_answer_makes_of_each_state() {
        use Standing::{Active, Exhausted, Invalid, Suspect};
        for (from, signal, to) in [
            (Active, Signal::Good, Active),
            (Active, Signal::Nothing, Active),
            (Active, Signal::Refused, Suspect),
            (Active, Signal::Spent, Exhausted),
            (Active, Signal::Limited(1), Active),
            (Active, Signal::UsedUp(1), Active),
            (Suspect, Signal::UsedUp(1), Active),
            (Exhausted, Signal::UsedUp(1), Active),
            (Suspect, Signal::Good, Active),
            (Suspect, Signal::Nothing, Suspect),
            (Suspect, Signal::Refused, Suspect),
            (Suspect, Signal::Spent, Exhausted),
            (Invalid, Signal::Good, Active),
            (Invalid, Signal::Nothing, Invalid),
            (Invalid, Signal::Refused, Invalid),
            (Invalid, Signal::Spent, Invalid),
            (Exhausted, Signal::Good, Active),
            (Exhausted, Signal::Nothing, Exhausted),
            (Exhausted, Signal::Refused, Suspect),
            (Exhausted, Signal::Spent, Exhausted),
        ] {
            let mut machine = in_state(from);
            let news = from != to || matches!(signal, Signal::Limited(_));
            assert_eq!(machine.hear(signal, "m", 20, 30), news, "{from:?} {signal:?}");
            assert_eq!(machine.standing(), to, "{from:?} {signal:?}");
        }
    }

    #[test]
    fn what_was_sent_before_a_state_says_nothing_about_it() {
        let mut machine = in_state(Standing::Exhausted);
        assert!(!machine.hear(Signal::Good, "m", 5, 40));
        assert_eq!(machine.standing(), Standing::Exhausted);
        let mut machine = in_state(Standing::Suspect);
        machine.probed(Verdict::Good, 50);
        assert!(!machine.hear(Signal::Spent, "m", 49, 60));
        assert_eq!(machine.standing(), Standing::Active);
    }

    #[test]
    fn a_probe_decides_and_only_one_runs() {
        for (verdict, standing) in [
            (Verdict::Good, Standing::Active),
            (Verdict::Refused, Standing::Invalid),
            (Verdict::Spent, Standing::Exhausted),
            (Verdict::Unclear, Standing::Suspect),
        ] {
            let mut machine = in_state(Standing::Suspect);
            assert!(machine.claim_probe(11) && !machine.claim_probe(12), "single flight");
            machine.probed(verdict, 20);
            assert_eq!(machine.standing(), standing);
        }
        // An invalid key is asked about again after each interval, and comes back.
        let mut machine = in_state(Standing::Invalid);
        assert!(!machine.claim_probe(10 + INTERVAL - 1) && machine.claim_probe(10 + INTERVAL));
        machine.probed(Verdict::Good, 11 + INTERVAL);
        assert!(machine.is_calm());
    }

    #[test]
    fn a_key_that_was_proven_good_is_not_suspected_again_at_once() {
        let mut machine = in_state(Standing::Suspect);
        machine.probed(Verdict::Good, 100);
        assert!(!machine.hear(Signal::Refused, "m", 200, 300));
        assert!(machine.hear(Signal::Refused, "m", 101 + INTERVAL, 102 + INTERVAL));
    }

    #[test]
    fn one_request_per_interval_tries_an_exhausted_key() {
        let mut machine = in_state(Standing::Exhausted);
        assert_eq!(machine.admits("m", 11), Admits::No);
        let due = 10 + INTERVAL;
        assert_eq!(machine.admits("m", due), Admits::Trial);
        assert!(machine.claim_trial(due) && !machine.claim_trial(due));
        assert_eq!(machine.admits("m", due), Admits::No);
        machine.hear(Signal::Good, "m", due, due + 5);
        assert_eq!(machine.admits("m", due + 6), Admits::Yes);
    }

    #[test]
    fn a_limit_cools_one_model_until_its_time() {
        let mut machine = Machine::new(INTERVAL);
        machine.hear(Signal::Limited(100), "m", 0, 10);
        assert_eq!(machine.admits("m", 50), Admits::Cooling(60));
        assert_eq!(machine.admits("other", 50), Admits::Yes);
        machine.hear(Signal::Limited(20), "m", 0, 60);
        assert_eq!(machine.admits("m", 100), Admits::Cooling(10), "a shorter one does not end a longer one");
        assert_eq!(machine.admits("m", 110), Admits::Yes);
        assert!(!machine.is_calm());
        machine.expire(110);
        assert!(machine.is_calm());
    }

    #[test]
    fn what_is_used_up_rests_and_is_never_left_out() {
        let mut machine = Machine::new(INTERVAL);
        assert!(!machine.hear(Signal::UsedUp(100), "m", 5, 10), "no news");
        assert_eq!((machine.admits("m", 50), machine.admits("other", 50)), (Admits::Resting, Admits::Yes));
        assert!(machine.is_well() && !machine.is_calm());
        machine.hear(Signal::Good, "m", 9, 20);
        assert_eq!(machine.admits("m", 50), Admits::Resting, "it was sent before");
        machine.hear(Signal::Good, "m", 11, 20);
        assert!(machine.is_calm(), "the vendor took another request");
        machine.hear(Signal::UsedUp(100), "m", 30, 40);
        machine.hear(Signal::Limited(10), "m", 30, 40);
        assert_eq!(machine.admits("m", 45), Admits::Cooling(5), "a refusal counts for more");
        assert_eq!((machine.admits("m", 50), machine.admits("m", 140)), (Admits::Resting, Admits::Yes));
        machine.expire(140);
        assert!(machine.is_calm());
    }

    #[test]
    fn other_nodes_findings_are_hints() {
        let mut machine = Machine::new(INTERVAL);
        assert!(machine.told(Standing::Invalid, 5));
        assert_eq!(machine.standing(), Standing::Suspect, "this node asks the vendor itself");
        assert!(machine.claim_probe(5));
        let mut machine = Machine::new(INTERVAL);
        assert!(machine.told(Standing::Exhausted, 5) && !machine.told(Standing::Active, 6));
        assert_eq!(machine.standing(), Standing::Exhausted);
    }

    #[test]
    fn what_an_earlier_process_knew_still_holds_until_the_vendor_says_otherwise() {
        let now = 1000;
        let recalled = |standing| {
            let cooling = vec![("m".to_owned(), now + 5), ("over".to_owned(), now), ("odd".to_owned(), i64::MAX)];
            let mut machine = Machine::new(INTERVAL);
            machine.recall(&Report { standing, cooling }, now);
            machine
        };
        let mut machine = recalled(Standing::Active);
        assert_eq!((machine.admits("m", now), machine.admits("over", now)), (Admits::Cooling(5), Admits::Yes));
        assert_eq!(machine.admits("odd", now), Admits::Cooling(LONGEST), "wall clocks are not trusted");
        assert!(!machine.claim_probe(now) && !machine.claim_trial(now));
        let mut machine = recalled(Standing::Invalid);
        assert_eq!(machine.admits("n", now), Admits::No);
        assert!(machine.claim_probe(now) && !machine.claim_probe(now), "the vendor is asked at once, and once");
        assert!(machine.probed(Verdict::Good, now + 1));
        assert_eq!(machine.admits("n", now + 1), Admits::Yes);
        let mut machine = recalled(Standing::Suspect);
        assert_eq!(machine.admits("n", now), Admits::Last { due: false });
        assert!(machine.claim_probe(now));
        let mut machine = recalled(Standing::Exhausted);
        assert_eq!((machine.admits("n", now), machine.claim_trial(now)), (Admits::No, false));
        assert_eq!(machine.admits("n", now + INTERVAL), Admits::Trial);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hear(Signal, u8),
        Probed(Verdict),
        Claim,
        Trial,
        Told(Standing),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, i64)>> {
        let signal = prop_oneof![
            Just(Signal::Good),
            Just(Signal::Nothing),
            (1..=LONGEST).prop_map(Signal::Limited),
            (1..=LONGEST).prop_map(Signal::UsedUp),
            Just(Signal::Refused),
            Just(Signal::Spent),
        ];
        let verdict = prop::sample::select(vec![Verdict::Good, Verdict::Refused, Verdict::Spent, Verdict::Unclear]);
        let standing = prop::sample::select(vec![Standing::Active, Standing::Invalid, Standing::Exhausted]);
        let step = prop_oneof![
            4 => (signal, any::<u8>()).prop_map(|(signal, model)| Step::Hear(signal, model)),
            1 => verdict.prop_map(Step::Probed),
            1 => Just(Step::Claim),
            1 => Just(Step::Trial),
            1 => standing.prop_map(Step::Told),
        ];
        prop::collection::vec((step, 0..INTERVAL), 1..300)
    }

    proptest! {
        #[test]
        fn memory_and_rates_are_bounded_and_every_state_ends(steps in steps()) {
            let mut machine = Machine::new(INTERVAL);
            let mut now = 0;
            let mut last_trial = i64::MIN;
            for (step, passes) in steps {
                now += passes;
                let before = machine.standing();
                match step {
                    Step::Hear(signal, model) => {
                        machine.hear(signal, &format!("m{model}"), now, now);
                        if signal == Signal::Nothing {
                            prop_assert_eq!(machine.standing(), before);
                        }
                    }
                    Step::Probed(verdict) => _ = machine.probed(verdict, now),
                    Step::Claim => {
                        if machine.claim_probe(now) {
                            prop_assert!(!machine.claim_probe(now + INTERVAL - 1));
                        }
                    }
                    Step::Trial => {
                        if machine.claim_trial(now) {
                            prop_assert!(last_trial == i64::MIN || now - last_trial >= INTERVAL);
                            last_trial = now;
                        }
                    }
                    Step::Told(standing) => _ = machine.told(standing, now),
                }
                prop_assert!(machine.cooling().count() <= MODELS);
                prop_assert!(machine.resting.iter().count() <= MODELS);
                prop_assert!(machine.cooling().all(|(_, until)| until - now <= LONGEST));
            }
            // From wherever it came: time passes, the vendor is well again.
            now += LONGEST.max(INTERVAL) + PROBE_ENDS;
            if machine.claim_probe(now) {
                machine.probed(Verdict::Good, now);
            } else if machine.claim_trial(now) {
                machine.hear(Signal::Good, "m", now, now);
            }
            machine.expire(now);
            prop_assert!(machine.is_calm());
        }
    }
}
