//! Counting tokens that no vendor reported, beside the exchanges.
//!
//! One thread counts, at most a quarter of one core's time, from a queue of at
//! most 64. Until an exchange is counted it holds what it held; then it is ended
//! here as it would have been by its task. When the queue is full, and while the
//! node stops, the size of the text has to do. If the process dies meanwhile,
//! the OPEN record is alone, as for any exchange that was under way. Streams
//! that may have to be cut off ask in between how many tokens came so far.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clawgate_shared::usage::Usage;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Services;
use super::account::{Account, Ending};
use crate::wire::{Counter, PromptSize, Sample, Scale, TextSize, Vocabulary};

/// Exchanges that may wait; each holds at most 80 KiB of text.
const QUEUE: usize = 64;
/// The thread rests so many times as long as it took to count, and no longer
/// than this.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_secs(1);
/// When it had nothing to do for so long, what splits text is let go.
const IDLE: Duration = Duration::from_secs(60);
/// What waits when the node stops is counted for so long.
const LAST_COUNTS: Duration = Duration::from_millis(250);

/// What is to be counted of an exchange.
#[derive(Debug)]
pub struct Recount {
    /// With which vocabulary.
    pub vocabulary: Vocabulary,
    /// The prompt, and the most it can be; `None`: it is known or cannot be.
    pub prompt: Option<(PromptSize, u64)>,
    /// The answer.
    pub answer: Answered,
}

/// What is known of an answer's text.
#[derive(Debug)]
pub struct Answered {
    /// A part of it.
    pub sample: Sample,
    /// All of it.
    pub all: TextSize,
    /// What the vendor has reported already.
    pub least: u64,
    /// The most it can be.
    pub most: u64,
}

impl Recount {
    fn apply(&self, counter: &mut Counter, usage: &mut Usage) {
        if let Some((prompt, most)) = &self.prompt {
            usage.input = Some(prompt.tokens(counter, self.vocabulary).min(*most));
        }
        let Answered { sample, all, least, most } = &self.answer;
        let tokens = sample.tokens(counter, self.vocabulary, *all);
        usage.output = Some(tokens.min(*most).max(*least));
        usage.total = None;
    }
}

#[derive(Debug)]
enum Job {
    /// An exchange to end. Whatever happens to it, its account is ended once.
    End(Box<(Account, Ending)>),
    /// A question.
    Scale { vocabulary: Vocabulary, sample: Sample, answer: oneshot::Sender<Scale> },
}

/// The queue; see the module.
#[derive(Debug, Default)]
pub struct Counting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// There is a thread, and it takes jobs.
    open: bool,
    /// Until when it counts what is left.
    closing: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

enum Next {
    /// Whether there is time to count.
    Job(Job, bool),
    Nothing,
    Over,
}

impl Counting {
    /// Starts the thread; until then nothing is counted. It ends with
    /// [`Self::close`], or soon after the services are gone.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(services: &Arc<Services>) -> std::io::Result<()> {
        let (counting, of) = (services.counting.clone(), Arc::downgrade(services));
        let mut state = services.counting.state.lock();
        let thread = std::thread::Builder::new().name("clawgate-count".into());
        state.thread = Some(thread.spawn(move || Thread { counting: &counting, services: of }.run())?);
        state.open = true;
        Ok(())
    }

    /// Ends an exchange once its tokens are counted, or at once.
    pub fn end(&self, services: &Services, mut account: Account, ending: Ending) {
        let mut state = self.state.lock();
        if state.open && state.jobs.len() < QUEUE {
            state.jobs.push_back(Job::End(Box::new((account, ending))));
            self.changed.notify_all();
            return;
        }
        drop(state);
        account.finish(services, &ending);
    }

    /// Counts a sample. `None`: too much is to be counted.
    pub async fn scale(&self, vocabulary: Vocabulary, sample: Sample) -> Option<Scale> {
        let (answer, asked) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if !state.open || state.jobs.len() >= QUEUE {
                return None;
            }
            // In its turn: questions ahead of the ends would put these off for ever.
            state.jobs.push_back(Job::Scale { vocabulary, sample, answer });
            self.changed.notify_all();
        }
        asked.await.ok()
    }

    /// Ends all that wait, and the thread. To be called when no exchange is left,
    /// before the spool is closed; blocks for a quarter of a second and a count.
    pub fn close(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.open = false;
            state.closing = Some(Instant::now() + LAST_COUNTS);
            self.changed.notify_all();
            state.thread.take()
        };
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("counting tokens failed");
        }
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        if state.jobs.is_empty() && state.closing.is_none() {
            self.changed.wait_for(&mut state, IDLE);
        }
        let counts = state.closing.is_none_or(|until| Instant::now() < until);
        match (state.jobs.pop_front(), state.closing) {
            (Some(job), _) => Next::Job(job, counts),
            (None, Some(_)) => Next::Over,
            (None, None) => Next::Nothing,
        }
    }

    /// Leaves the processor to others, unless the node stops.
    fn rest(&self, took: Duration) {
        let until = Instant::now() + (took * REST).min(LONGEST_REST);
        let mut state = self.state.lock();
        while state.closing.is_none() && !self.changed.wait_until(&mut state, until).timed_out() {}
    }
}

/// The thread that counts.
struct Thread<'a> {
    counting: &'a Counting,
    services: Weak<Services>,
}

impl Thread<'_> {
    fn run(self) {
        let mut counter = Counter::default();
        loop {
            match self.counting.next() {
                Next::Over => return,
                Next::Nothing => {
                    counter = Counter::default();
                    if self.services.strong_count() == 0 {
                        return;
                    }
                }
                Next::Job(job, counts) => {
                    let began = Instant::now();
                    match job {
                        Job::End(end) => {
                            let Some(services) = self.services.upgrade() else { return };
                            let (mut account, ending) = *end;
                            if let Some(recount) = account.recount.take().filter(|_| counts) {
                                recount.apply(&mut counter, &mut account.usage);
                            }
                            account.finish(&services, &ending);
                        }
                        Job::Scale { answer, .. } if answer.is_closed() || !counts => {}
                        Job::Scale { vocabulary, sample, answer } => {
                            // Whoever asked may have gone meanwhile.
                            let _ = answer.send(sample.scale(&mut counter, vocabulary));
                        }
                    }
                    self.counting.rest(began.elapsed());
                }
            }
        }
    }
}

impl Drop for Thread<'_> {
    /// Also when a fault ends the thread, nobody waits for it in vain.
    fn drop(&mut self) {
        let left = {
            let mut state = self.counting.state.lock();
            state.open = false;
            std::mem::take(&mut state.jobs)
        };
        if let Some(services) = self.services.upgrade() {
            for job in left {
                if let Job::End(mut end) = job {
                    end.0.finish(&services, &end.1);
                }
            }
        }
    }
}
