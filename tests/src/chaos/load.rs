//! Requests at a steady pace, whatever becomes of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Connection, Request};

/// Who asks, what for, and how often.
#[derive(Debug)]
pub struct Source {
    /// Begins its requests' ids.
    pub name: &'static str,
    /// What is sent, without an id.
    pub request: Request,
    /// Per second; may be changed while it runs.
    pub rate: AtomicU64,
    /// Connections that take turns; more than are ever in flight at once.
    pub connections: u64,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of the source.
    pub name: &'static str,
    /// When it was due, since the load began.
    pub at: Duration,
    /// From when it was due to its answer's end: what waits because others are
    /// slow is not left out.
    pub took: Duration,
    /// 0: no answer.
    pub status: u16,
    /// Of the error; empty when there is none.
    pub code: String,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load<'a> {
    sources: &'a [Source],
    began: Instant,
    stop: Mutex<bool>,
    stopped: Condvar,
    samples: Mutex<Vec<Sample>>,
}

impl<'a> Load<'a> {
    /// Sends what `sources` say to `address` while `work` runs, and returns
    /// every sample once all have come home.
    ///
    /// # Panics
    /// `work` does.
    pub fn run(address: SocketAddr, sources: &'a [Source], work: impl FnOnce(&Self)) -> Vec<Sample> {
        let load = Self {
            sources,
            began: Instant::now(),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
            samples: Mutex::new(Vec::new()),
        };
        thread::scope(|scope| {
            for source in load.sources {
                for number in 0..source.connections {
                    let load = &load;
                    scope.spawn(move || load.client(address, source, number));
                }
            }
            // A panic in here must stop the clients, or the scope never ends.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&load)));
            *load.stop.lock().expect("lock") = true;
            load.stopped.notify_all();
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        });
        load.samples.into_inner().expect("lock")
    }

    /// Time since it began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// How many answers of a source satisfy `wanted` since `from`.
    #[must_use]
    pub fn count(&self, name: &str, from: Duration, wanted: impl Fn(&Sample) -> bool) -> usize {
        let samples = self.samples.lock().expect("lock");
        samples.iter().filter(|sample| sample.name == name && sample.at >= from && wanted(sample)).count()
    }

    /// Waits until the load ends or `due` has come.
    fn stopped_before(&self, due: Duration) -> bool {
        let stop = self.stop.lock().expect("lock");
        let left = due.saturating_sub(self.now());
        *self.stopped.wait_timeout_while(stop, left, |stop| !*stop).expect("lock").0
    }

    fn client(&self, address: SocketAddr, source: &Source, number: u64) {
        let mut kept: Option<Connection> = None;
        let mut due = Duration::ZERO;
        for serial in 0_u64.. {
            let rate = source.rate.load(Ordering::Relaxed).max(1);
            let period = Duration::from_micros(1_000_000 * source.connections / rate);
            due = if serial == 0 {
                period * u32::try_from(number).unwrap_or(0) / u32::try_from(source.connections).unwrap_or(1)
            } else {
                due + period
            };
            if self.stopped_before(due) {
                return;
            }
            let request =
                source.request.clone().header("x-request-id", &format!("{}-{number:03}-{serial:08}", source.name));
            let answer = kept.take().map_or_else(|| Connection::open(address), Ok).and_then(|mut connection| {
                let answer = connection.call(&request)?;
                Ok((connection, answer))
            });
            let took = self.now() - due;
            let (status, code) = match answer {
                Ok((connection, answer)) if answer.cut.is_none() => {
                    if answer.head.header("connection") != Some("close") {
                        kept = Some(connection);
                    }
                    (answer.status(), if answer.status() == 200 { String::new() } else { answer.code() })
                }
                _ => (0, String::new()),
            };
            let sample = Sample { name: source.name, at: due, took, status, code };
            self.samples.lock().expect("lock").push(sample);
        }
    }
}

/// The given per mille of the times of `samples`, such as 500 for the median.
#[must_use]
pub fn percentile(samples: &[&Sample], per_mille: usize) -> Duration {
    let mut times: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
    times.sort_unstable();
    times.get((times.len() * per_mille / 1000).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}
