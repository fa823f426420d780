//! The keys that may serve one bot at one vendor.

use std::sync::Arc;

use super::key::Key;
use super::pick::Turn;

/// Compiled per bot and vendor. Empty pools are kept, with the reason.
#[derive(Debug)]
pub struct Pool {
    /// Those that match, ordered by id.
    pub keys: Vec<Arc<Key>>,
    /// Whether any of them has a quota of its own.
    pub any_quotas: bool,
    /// Whether the tenant has any enabled key for the vendor at all.
    pub any_configured: bool,
    /// The bot's turn counter at this vendor.
    pub turn: Arc<Turn>,
}

/// Candidates in the order in which they are to be tried.
#[derive(Debug)]
pub struct Ordered<'a> {
    pool: &'a Pool,
    narrowed: Option<Vec<usize>>,
    start: usize,
    given: usize,
}

impl Pool {
    /// The order for one exchange: round robin's choice first, then the keys
    /// after it. `extra_tags` narrow the choice and never widen it.
    #[must_use]
    pub fn ordered(&self, extra_tags: &[String]) -> Ordered<'_> {
        let narrowed: Option<Vec<usize>> = (!extra_tags.is_empty()).then(|| {
            self.keys.iter().enumerate().filter(|(_, key)| key.carries(extra_tags)).map(|(at, _)| at).collect()
        });
        let len = narrowed.as_ref().map_or(self.keys.len(), Vec::len);
        Ordered { pool: self, narrowed, start: self.turn.next(len), given: 0 }
    }
}

impl<'a> Iterator for Ordered<'a> {
    type Item = &'a Arc<Key>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = self.narrowed.as_ref().map_or(self.pool.keys.len(), Vec::len);
        if self.given >= len {
            return None;
        }
        let at = (self.start + self.given).checked_rem(len)?;
        self.given += 1;
        let at = match &self.narrowed {
            Some(list) => *list.get(at)?,
            None => at,
        };
        self.pool.keys.get(at)
    }
}

/// The tags of an `x-clawgate-tag` header: comma separated, blanks trimmed.
#[must_use]
pub fn required_tags(header: &str) -> Vec<String> {
    header.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Credential, Turns};
    use clawgate_shared::catalogue::IncludeUsage;
    use clawgate_shared::origin::BaseUrl;
    use http::HeaderValue;

    fn pool(keys: &[(&str, &[&str])]) -> Pool {
        let keys = keys
            .iter()
            .map(|(id, tags)| {
                Arc::new(Key {
                    id: (*id).into(),
                    id_header: HeaderValue::from_str(id).expect("ascii"),
                    tags: tags.iter().map(|t| (*t).to_owned()).collect(),
                    base_url: None,
                    base: BaseUrl::parse("https://vendor.example/v1").expect("plain"),
                    credential: Credential::None,
                    include_usage: IncludeUsage::Inject,
                    quotas: Vec::new(),
                    gate: None,
                    organization: None,
                })
            })
            .collect();
        Pool { keys, any_quotas: false, any_configured: true, turn: Turns::default().of(&"b".into(), &"v".into()) }
    }

    #[test]
    fn every_candidate_comes_once_and_the_first_rotates() {
        let pool = pool(&[("k1", &[]), ("k2", &[]), ("k3", &[])]);
        let firsts: Vec<_> = (0..3).map(|_| pool.ordered(&[]).next().map(|k| k.id.to_string())).collect();
        let mut sorted = firsts.clone();
        sorted.sort();
        assert_eq!(sorted, [Some("k1".into()), Some("k2".into()), Some("k3".into())]);
        assert_eq!(pool.ordered(&[]).count(), 3);
    }

    #[test]
    fn extra_tags_narrow() {
        let pool = pool(&[("k1", &["a"]), ("k2", &["a", "b"]), ("k3", &["b"])]);
        let ids = |tags: &str| -> Vec<String> {
            let mut ids: Vec<_> = pool.ordered(&required_tags(tags)).map(|k| k.id.to_string()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(" a , b"), ["k2"]);
        assert_eq!(ids("b"), ["k2", "k3"]);
        assert!(ids("c").is_empty());
    }
}
