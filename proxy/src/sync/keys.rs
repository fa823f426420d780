//! Where keys stand, kept beside the last known good configuration: a node that
//! starts again does not try afresh what its predecessor knew to be refused.
//!
//! What is kept is as good as what a running node knows: it is told to the vendor's
//! word again by probes and trials, and a wait ends when it would have ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::identity::IdentityCell;
use crate::routing::health::REMEMBERED;
use crate::routing::{Healths, Report, Standing};
use crate::snapshot::cache::Cache;
use crate::upstream::KeyNews;

/// Longer waits for a limit are not news, but are kept too.
const LOOK: Duration = Duration::from_secs(5);
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Clone)]
pub struct KeyMemory {
    /// What is kept.
    pub healths: Arc<Healths>,
    /// Where.
    pub cache: Arc<Cache>,
    /// Its key seals it.
    pub identity: Arc<IdentityCell>,
    /// Says when it changed.
    pub news: Arc<KeyNews>,
}

/// One key, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Its id, secret and place.
    stamp: String,
    state: String,
    /// Models that cool, each with its end in unix microseconds.
    cooling: Vec<(String, i64)>,
}

impl KeyMemory {
    /// Takes up what was kept. Blocks on the disk; to be called before the first
    /// configuration is compiled.
    pub fn recall(&self) {
        let Some(bytes) = self.identity.sealing_key().and_then(|key| self.cache.keys(&key)) else { return };
        match decode(&bytes, clock::boot_micros(), clock::now_micros()) {
            Ok(known) => self.healths.recall(known),
            Err(error) => tracing::warn!(%error, "how keys stood is not known"),
        }
    }

    /// The background task. What changes is on disk within a moment.
    pub async fn run(self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept = self.healths.remember(clock::boot_micros());
        loop {
            tokio::select! {
                () = self.news.to_keep() => {}
                _ = look.tick() => {}
            }
            let known = self.healths.remember(clock::boot_micros());
            if known == kept || self.identity.sealing_key().is_none() {
                continue;
            }
            let (this, now) = (self.clone(), known.clone());
            match spawn_blocking(move || this.keep(&now)).await {
                Ok(Ok(())) => kept = known,
                Ok(Err(error)) => tracing::warn!(error, "how keys stand was not saved"),
                Err(_) => return,
            }
            sleep(PAUSE).await;
        }
    }

    fn keep(&self, known: &BTreeMap<String, Report>) -> Result<(), String> {
        let Some(key) = self.identity.sealing_key() else { return Ok(()) };
        let bytes = encode(known, clock::boot_micros(), clock::now_micros()).map_err(|error| error.to_string())?;
        self.cache.store_keys(&key, &bytes).map_err(|error| error.to_string())
    }
}

/// `now` is monotonic, `wall` the same moment in unix microseconds.
fn encode(known: &BTreeMap<String, Report>, now: i64, wall: i64) -> Result<Vec<u8>, serde_json::Error> {
    let kept = known.iter().map(|(stamp, report)| Kept {
        stamp: stamp.clone(),
        state: report.standing.as_str().to_owned(),
        cooling: report.cooling.iter().map(|(model, until)| (model.clone(), moved(*until, now, wall))).collect(),
    });
    serde_json::to_vec(&kept.collect::<Vec<_>>())
}

fn decode(bytes: &[u8], now: i64, wall: i64) -> Result<Vec<(String, Report)>, serde_json::Error> {
    let kept: Vec<Kept> = serde_json::from_slice(bytes)?;
    let known = kept.into_iter().take(REMEMBERED).filter_map(|Kept { stamp, state, cooling }| {
        let standing = Standing::parse(&state)?;
        let cooling = cooling.into_iter().map(|(model, until)| (model, moved(until, wall, now))).collect();
        Some((stamp, Report { standing, cooling }))
    });
    Ok(known.collect())
}

/// A moment on another clock, by what both say now.
const fn moved(moment: i64, from: i64, to: i64) -> i64 {
    to.saturating_add(moment.saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_on_another_clock() {
        let report = |standing, cooling: &[(&str, i64)]| Report {
            standing,
            cooling: cooling.iter().map(|(model, until)| ((*model).to_owned(), *until)).collect(),
        };
        let known = BTreeMap::from([
            ("key_1 1 https://a bearer".to_owned(), report(Standing::Invalid, &[])),
            ("key_2 1 https://a".to_owned(), report(Standing::Active, &[("m", 1500), ("", 900)])),
        ]);
        let bytes = encode(&known, 1000, 70_000).expect("encodes");
        // The machine has started anew meanwhile, and 100 microseconds have passed.
        let found = decode(&bytes, 40, 70_100).expect("decodes");
        let wanted = [
            ("key_1 1 https://a bearer".to_owned(), report(Standing::Invalid, &[])),
            ("key_2 1 https://a".to_owned(), report(Standing::Active, &[("m", 440), ("", -160)])),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_nobody_wrote_is_refused_or_passed_over() {
        assert!(decode(b"", 0, 0).is_err() && decode(b"{}", 0, 0).is_err());
        let text =
            br#"[{"stamp":"k","state":"odd","cooling":[]},{"stamp":"k","state":"suspect","cooling":[["m",-9e18]]}]"#;
        assert!(decode(text, 0, 0).is_err(), "a number that is none");
        let text = br#"[{"stamp":"k","state":"odd","cooling":[]},{"stamp":"l","state":"suspect","cooling":[]}]"#;
        let found = decode(text, 0, 0).expect("decodes");
        assert_eq!(found, [("l".to_owned(), Report { standing: Standing::Suspect, cooling: Vec::new() })]);
    }
}
