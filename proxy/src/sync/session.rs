//! What a node holds and how an update changes it. Sans-IO: messages in, an
//! answer out; activation is a function that is handed in.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use clawgate_shared::content::{Change, Content, kind_of};
use clawgate_shared::mutant::{self, Mutant};
use clawgate_shared::proto::node::{Resource, SealedSecret, Update, Version};

use crate::snapshot::cache::Saved;

/// Sealed provider keys by key id.
pub type Secrets = HashMap<String, SealedSecret>;

/// Makes a content the one that is served, or says why not and changes
/// nothing.
pub type Activate = Arc<dyn Fn(&Content, &Secrets, &Version) -> Result<(), Vec<String>> + Send + Sync>;

/// Longest reason that is sent back, in bytes.
const MAX_REASON: usize = 1024;
/// Most reasons that are sent back.
const MAX_REASONS: usize = 50;

/// The answer to an update.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is served now.
    Ack {
        /// Of the update.
        version: Version,
        /// Whether anything was different from before.
        changed: bool,
    },
    /// It is refused; what was served before still is.
    Nack {
        /// Of the update.
        version: Version,
        /// For an admin.
        reasons: Vec<String>,
        /// The two sides disagree about what the node holds: only a full
        /// snapshot helps.
        resync: bool,
    },
}

/// What a node holds.
pub struct Session {
    activate: Activate,
    held: Option<Saved>,
    /// Set when the next update must be a full one.
    resync: bool,
    /// Set when a lower revision is no mistake: another control plane.
    other_plane: bool,
}

struct Refusal {
    reasons: Vec<String>,
    resync: bool,
}

impl Session {
    /// A session that holds nothing.
    #[must_use]
    pub fn new(activate: Activate) -> Self {
        Self { activate, held: None, resync: false, other_plane: false }
    }

    /// Activates what an earlier process had saved.
    ///
    /// # Errors
    /// Why it cannot be served; the session holds nothing then.
    pub fn restore(&mut self, saved: Saved) -> Result<(), Vec<String>> {
        self.call(&saved)?;
        self.held = Some(saved);
        Ok(())
    }

    /// What to say in the `Hello`: `None` asks for a full snapshot.
    #[must_use]
    pub fn have(&self) -> Option<Version> {
        self.held.as_ref().filter(|_| !self.resync).map(|held| held.version.clone())
    }

    /// What is served, for the last known good.
    #[must_use]
    pub fn held(&self) -> Option<&Saved> {
        self.held.as_ref()
    }

    /// The node has a new identity: secrets sealed to the old one do not open,
    /// and the revisions are another control plane's. What is served stays.
    pub fn forget(&mut self) {
        self.resync = true;
        self.other_plane = true;
    }

    /// Takes an update or refuses it; never anything between.
    pub fn on_update(&mut self, update: Update) -> Outcome {
        let version = update.version.clone().unwrap_or_default();
        match self.take(update) {
            Ok(changed) => {
                self.resync = false;
                self.other_plane = false;
                Outcome::Ack { version, changed }
            }
            Err(Refusal { mut reasons, resync }) => {
                self.resync |= resync;
                reasons.truncate(MAX_REASONS);
                reasons.iter_mut().for_each(|reason| reason.truncate(reason.floor_char_boundary(MAX_REASON)));
                Outcome::Nack { version, reasons, resync }
            }
        }
    }

    fn take(&mut self, update: Update) -> Result<bool, Refusal> {
        let version = update.version.ok_or_else(|| Refusal::resync("the update has no version"))?;
        if let Some(held) = self.held.as_mut().filter(|_| !self.other_plane) {
            let old = &held.version;
            let older = (version.generation, version.revision) < (old.generation, old.revision);
            if older && !mutant::is(Mutant::OlderSnapshotTaken) {
                return Err(Refusal::keep(format!(
                    "revision {}-{} is older than {}-{}, which is served",
                    version.generation, version.revision, old.generation, old.revision
                )));
            }
            if version.hash == old.hash && !self.resync {
                held.version = version;
                return Ok(false);
            }
        }
        let base = match (&update.base, &self.held) {
            (None, _) => None,
            (Some(base), Some(held)) if base.hash == held.version.hash && !self.resync => Some(held),
            (Some(base), _) => {
                return Err(Refusal::resync(format!("the change is against {}, which is not held", short(&base.hash))));
            }
        };
        let mut content = base.map(|held| held.content.clone()).unwrap_or_default();
        let mut secrets = base.map(|held| held.secrets.clone()).unwrap_or_default();
        let change = Change { upserts: update.upserts, removals: update.removals };
        content.apply(change).map_err(|error| Refusal::resync(error.to_string()))?;
        let hash = content.hash();
        if hash != version.hash {
            let (is, meant) = (short(&hash), short(&version.hash));
            return Err(Refusal::resync(format!("the result has hash {is}, {meant} was meant")));
        }
        secrets.extend(update.secrets.into_iter().map(|secret| (secret.key_id.clone(), secret)));
        drop_orphans(&mut secrets, &content);
        let next = Saved { content, secrets, version };
        self.call(&next).map_err(|reasons| Refusal { reasons, resync: false })?;
        self.held = Some(next);
        Ok(true)
    }

    fn call(&self, saved: &Saved) -> Result<(), Vec<String>> {
        let activate = || (self.activate)(&saved.content, &saved.secrets, &saved.version);
        catch_unwind(AssertUnwindSafe(activate))
            .unwrap_or_else(|_| Err(vec!["the node failed while it built this configuration".to_owned()]))
    }
}

impl Refusal {
    fn resync(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], resync: true }
    }

    fn keep(reason: String) -> Self {
        Self { reasons: vec![reason], resync: false }
    }
}

/// Secrets of keys that are gone are not kept.
fn drop_orphans(secrets: &mut Secrets, content: &Content) {
    let is_key = |resource: &&Resource| kind_of(resource) == Some("provider_key");
    let keys: std::collections::HashSet<&str> = content.iter().filter(is_key).map(|key| key.id.as_str()).collect();
    secrets.retain(|id, _| keys.contains(id.as_str()));
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use clawgate_shared::proto::node::{ProviderKey, ResourceRef, Settings, Tenant, resource::Body};

    use super::*;

    fn tenant(id: &str) -> Resource {
        Resource { id: id.into(), body: Some(Body::Tenant(Tenant { slug: id.into(), ..Tenant::default() })) }
    }

    fn key(id: &str, secret_version: u64) -> Resource {
        let key = ProviderKey { tenant_id: "ten_1".into(), secret_version, ..ProviderKey::default() };
        Resource { id: id.into(), body: Some(Body::ProviderKey(key)) }
    }

    fn poison() -> Resource {
        let settings = Settings { poison: "yes".into(), ..Settings::default() };
        Resource { id: "settings".into(), body: Some(Body::Settings(settings)) }
    }

    fn secret(id: &str, secret_version: u64) -> SealedSecret {
        SealedSecret { key_id: id.into(), secret_version, ..SealedSecret::default() }
    }

    fn content(resources: &[Resource]) -> Content {
        let mut content = Content::default();
        resources.iter().for_each(|resource| content.upsert(resource.clone()).expect("known kind"));
        content
    }

    fn version(revision: u64, resources: &[Resource]) -> Version {
        Version { generation: 1, revision, hash: content(resources).hash() }
    }

    fn full(revision: u64, resources: &[Resource]) -> Update {
        Update { version: Some(version(revision, resources)), upserts: resources.to_vec(), ..Update::default() }
    }

    fn delta(base: &Version, revision: u64, from: &[Resource], to: &[Resource]) -> Update {
        let change = content(to).change_since(&content(from));
        Update {
            version: Some(version(revision, to)),
            base: Some(base.clone()),
            upserts: change.upserts,
            removals: change.removals,
            ..Update::default()
        }
    }

    type Activated = Arc<Mutex<Vec<(u64, Vec<String>)>>>;

    fn session() -> (Session, Activated) {
        let activated = Activated::default();
        let seen = activated.clone();
        let activate: Activate = Arc::new(move |content, secrets, version| {
            if content.iter().any(|resource| resource.id == "settings") {
                return Err(vec!["poisoned".into()]);
            }
            let mut keys: Vec<String> = secrets.keys().cloned().collect();
            keys.sort();
            seen.lock().expect("lock").push((version.revision, keys));
            Ok(())
        });
        (Session::new(activate), activated)
    }

    fn reasons(outcome: Outcome) -> (String, bool) {
        match outcome {
            Outcome::Nack { reasons, resync, .. } => (reasons.join("; "), resync),
            Outcome::Ack { .. } => panic!("acknowledged"),
        }
    }

    fn is_ack(outcome: &Outcome, wanted_change: bool) -> bool {
        matches!(outcome, Outcome::Ack { changed, .. } if *changed == wanted_change)
    }

    #[test]
    fn full_then_delta_then_nothing_new() {
        let (mut session, activated) = session();
        assert_eq!(session.have(), None);
        let first = [tenant("ten_1"), key("key_1", 1), key("key_2", 1)];
        let mut update = full(1, &first);
        update.secrets = vec![secret("key_1", 1), secret("key_2", 1), secret("key_unknown", 1)];
        assert!(is_ack(&session.on_update(update), true));
        let have = session.have().expect("holds one");
        let second = [tenant("ten_1"), key("key_1", 2), key("key_3", 1)];
        let mut update = delta(&have, 2, &first, &second);
        update.secrets = vec![secret("key_1", 2), secret("key_3", 1)];
        assert!(is_ack(&session.on_update(update), true));
        assert_eq!(session.held().expect("holds one").secrets["key_1"].secret_version, 2);
        // The same content at a later revision: nothing to build.
        assert!(is_ack(&session.on_update(full(3, &second)), false));
        assert_eq!(session.have().map(|version| version.revision), Some(3));
        let keys = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let expected = vec![(1, keys(&["key_1", "key_2"])), (2, keys(&["key_1", "key_3"]))];
        assert_eq!(*activated.lock().expect("lock"), expected);
    }

    #[test]
    fn what_is_refused_leaves_the_old_state() {
        let first = [tenant("ten_1")];
        let second = [tenant("ten_1"), tenant("ten_2")];
        let held = version(5, &first);
        let other = Version { hash: "0".repeat(64), ..held.clone() };
        let unknown = ResourceRef { kind: "bot".into(), id: "bot_1".into() };
        let cases: Vec<(&str, Update, &str, bool)> = vec![
            ("no version", Update::default(), "no version", true),
            ("an older revision", full(4, &second), "older", false),
            (
                "an older generation",
                Update { version: Some(Version { generation: 0, ..version(9, &second) }), ..full(9, &second) },
                "older",
                false,
            ),
            ("a foreign base", delta(&other, 6, &first, &second), "not held", true),
            (
                "a wrong hash",
                Update { version: Some(Version { revision: 6, ..other.clone() }), ..full(6, &second) },
                "hash",
                true,
            ),
            (
                "an unknown removal",
                Update { removals: vec![unknown], ..delta(&held, 6, &first, &second) },
                "removal of unknown",
                true,
            ),
            (
                "a resource without a body",
                Update { upserts: vec![Resource::default()], ..full(6, &second) },
                "no body",
                true,
            ),
            ("a content that does not compile", full(6, &[tenant("ten_1"), poison()]), "poisoned", false),
        ];
        for (name, update, text, resync) in cases {
            let (mut session, activated) = session();
            assert!(is_ack(&session.on_update(full(5, &first)), true));
            let (reason, asked) = reasons(session.on_update(update));
            assert!(reason.contains(text), "{name}: {reason}");
            assert_eq!(asked, resync, "{name}");
            assert_eq!(session.have().is_none(), resync, "{name}");
            assert_eq!(session.held().map(|held| held.version.clone()), Some(held.clone()), "{name}");
            assert_eq!(activated.lock().expect("lock").len(), 1, "{name}");
            // And the next good one is taken.
            assert!(is_ack(&session.on_update(full(7, &second)), true), "{name}");
            assert_eq!(session.have(), Some(version(7, &second)), "{name}");
        }
    }

    #[test]
    fn another_control_plane_may_begin_at_a_lower_revision_and_bring_new_secrets() {
        let (mut session, activated) = session();
        let first = [tenant("ten_1"), key("key_1", 1)];
        assert!(is_ack(&session.on_update(full(50, &first)), true));
        session.forget();
        assert_eq!(session.have(), None);
        assert!(is_ack(&session.on_update(full(3, &first)), true), "even an equal content is built again");
        assert!(!is_ack(&session.on_update(full(2, &first)), true), "and from then on revisions count again");
        assert_eq!(activated.lock().expect("lock").len(), 2);
    }

    #[test]
    fn an_activation_that_panics_is_a_refusal() {
        let mut session = Session::new(Arc::new(|_, _, _| panic!("a bug")));
        let (reason, _) = reasons(session.on_update(full(1, &[tenant("ten_1")])));
        assert!(reason.contains("failed"), "{reason}");
        assert!(session.held().is_none());
    }
}
