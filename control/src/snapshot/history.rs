//! The last few published contents, and the way from one to another. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use clawgate_shared::content::Content;
use clawgate_shared::proto::node::{Resource, Update, Version, resource::Body};

use super::assemble::{Assembled, StoredSecret};

/// How many contents are kept; a node that holds an older one gets a full
/// snapshot.
pub const KEPT: usize = 16;

/// A content that nodes are told.
#[derive(Debug, Default)]
pub struct Published {
    /// Which.
    pub version: Version,
    /// What.
    pub content: Content,
    /// Secrets by key id, sealed for the database.
    pub secrets: BTreeMap<String, StoredSecret>,
}

impl Published {
    /// Gives an assembled content its version.
    #[must_use]
    pub fn new(assembled: Assembled) -> Self {
        let Assembled { revision, content, secrets } = assembled;
        let version = Version { generation: revision.generation, revision: revision.revision, hash: content.hash() };
        Self { version, content, secrets }
    }

    /// Whether it asks nodes to refuse it.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.content
            .iter()
            .any(|resource| matches!(&resource.body, Some(Body::Settings(settings)) if !settings.poison.is_empty()))
    }
}

/// The current content first.
#[derive(Clone, Debug, Default)]
pub struct History {
    kept: VecDeque<Arc<Published>>,
}

impl History {
    /// Makes `published` the current one.
    pub fn push(&mut self, published: Arc<Published>) {
        self.kept.push_front(published);
        self.kept.truncate(KEPT);
    }

    /// What every node should hold; `None` before the first.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<Published>> {
        self.kept.front()
    }

    /// The content of this hash, whichever revision had it.
    #[must_use]
    pub fn find(&self, hash: &str) -> Option<&Arc<Published>> {
        self.kept.iter().find(|published| published.version.hash == hash)
    }
}

/// What to send to a node that holds `base`; `None`: everything. Secrets and
/// time are still missing.
#[must_use]
pub fn update(target: &Published, base: Option<(&Version, &Content)>) -> Update {
    let (base, change) = match base {
        Some((version, content)) => (Some(version.clone()), target.content.change_since(content)),
        None => (None, target.content.change_since(&Content::default())),
    };
    Update {
        version: Some(target.version.clone()),
        base,
        upserts: change.upserts,
        removals: change.removals,
        secrets: Vec::new(),
        control_time_micros: 0,
    }
}

/// Ids of the provider keys among `resources` that are in use.
pub fn enabled_keys(resources: &[Resource]) -> impl Iterator<Item = &str> {
    resources.iter().filter_map(|resource| match &resource.body {
        Some(Body::ProviderKey(key)) if key.enabled => Some(resource.id.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture;
    use crate::store::revisions::Revision;

    fn published(revision: u64, hostname: &str) -> Arc<Published> {
        let mut parts = fixture::parts();
        parts.bot.hostname = hostname.into();
        Arc::new(Published::new(Assembled {
            revision: Revision { generation: 1, revision },
            content: parts.content(),
            ..Assembled::default()
        }))
    }

    #[test]
    fn a_delta_and_a_full_snapshot_lead_to_the_same_content() {
        let (old, new) = (published(1, "a"), published(2, "b"));
        let full = update(&new, None);
        assert!(full.base.is_none() && full.upserts.len() == new.content.len());
        let delta = update(&new, Some((&old.version, &old.content)));
        assert_eq!((delta.upserts.len(), delta.removals.len()), (1, 0));
        let mut content = old.content.clone();
        for resource in delta.upserts {
            content.upsert(resource).expect("known kind");
        }
        assert_eq!(content.hash(), new.version.hash);
    }

    #[test]
    fn the_same_content_under_a_later_revision_is_an_empty_change() {
        let (old, new) = (published(1, "a"), published(2, "a"));
        let delta = update(&new, Some((&old.version, &old.content)));
        assert_eq!((delta.upserts.len(), delta.removals.len()), (0, 0));
        assert_eq!(delta.version.map(|version| version.revision), Some(2));
    }

    #[test]
    fn only_the_last_few_are_kept() {
        let mut history = History::default();
        assert!(history.current().is_none());
        let all: Vec<_> = (0..=KEPT as u64).map(|n| published(n, &format!("h{n}"))).collect();
        all.iter().for_each(|published| history.push(published.clone()));
        assert_eq!(history.current().map(|p| p.version.revision), Some(KEPT as u64));
        assert!(history.find(&all[0].version.hash).is_none());
        assert!(history.find(&all[1].version.hash).is_some());
        assert_eq!(enabled_keys(&update(&all[1], None).upserts).collect::<Vec<_>>(), ["key_1"]);
    }
}
