//! Rules set while running: knobs for one credential, or for everyone, for a
//! number of requests. This is how a test makes one key of a pool fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::knobs::{KnobError, Knobs};

/// Most rules held at once.
const MAX_RULES: usize = 1000;

/// One rule as posted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// SHA-256 of the credential in hex; absent: every request.
    #[serde(default)]
    credential: Option<String>,
    /// Knob names and values; a list gives one knob several values.
    knobs: Map<String, Value>,
    /// For this many requests; absent: until the next reset.
    #[serde(default)]
    times: Option<u64>,
}

/// Why a rule was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("not a rule: {0}")]
    Shape(#[from] serde_json::Error),
    #[error(transparent)]
    Knob(#[from] KnobError),
    #[error("there are already {MAX_RULES} rules")]
    Full,
}

/// The rules in the order they were posted.
#[derive(Default)]
pub(crate) struct Rules {
    any: AtomicBool,
    list: Mutex<Vec<Rule>>,
}

impl Rules {
    /// Whether there is anything to apply.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes a posted rule after trying its knobs.
    pub(crate) fn add(&self, body: &[u8]) -> Result<(), RuleError> {
        let rule: Rule = serde_json::from_slice(body)?;
        turn(&rule, &mut Knobs::default())?;
        let mut list = self.lock();
        if list.len() >= MAX_RULES {
            return Err(RuleError::Full);
        }
        list.push(rule);
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets all rules.
    pub(crate) fn clear(&self) {
        self.lock().clear();
        self.any.store(false, Ordering::Release);
    }

    /// Turns the knobs of every rule that fits and counts it as used.
    pub(crate) fn apply<'a>(
        &self,
        credentials: impl Iterator<Item = &'a str> + Clone,
        knobs: &mut Knobs,
    ) -> Result<(), KnobError> {
        for rule in self.lock().iter_mut() {
            let fits = rule.credential.as_deref().is_none_or(|wanted| credentials.clone().any(|hash| hash == wanted));
            if !fits || rule.times == Some(0) {
                continue;
            }
            if let Some(left) = &mut rule.times {
                *left -= 1;
            }
            turn(rule, knobs)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn turn(rule: &Rule, knobs: &mut Knobs) -> Result<(), KnobError> {
    for (name, value) in &rule.knobs {
        match value {
            Value::String(text) => knobs.set(name, text)?,
            Value::Array(values) => {
                for value in values {
                    knobs.set(name, value.as_str().unwrap_or_default())?;
                }
            }
            other => knobs.set(name, &other.to_string())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_fit_credentials_and_run_out() {
        let rules = Rules::default();
        rules.add(br#"{"credential":"aa","knobs":{"status":429,"header":["a:b","c:d"]},"times":1}"#).unwrap();
        let turned = |hash: &str| {
            let mut knobs = Knobs::default();
            rules.apply([hash].into_iter(), &mut knobs).unwrap();
            (knobs.status, knobs.headers.len())
        };
        assert_eq!(turned("bb"), (None, 0));
        assert_eq!(turned("aa"), (Some(429), 2));
        assert_eq!(turned("aa"), (None, 0));
        assert!(rules.add(br#"{"knobs":{"statu":429}}"#).is_err());
        rules.clear();
        assert!(!rules.any());
    }
}
