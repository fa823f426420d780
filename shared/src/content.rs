//! A configuration as a set of resources: how it is hashed, compared and
//! patched. Both planes run this same code, so a node can prove that what it
//! holds is what the control plane meant.
//!
//! Invariant: two contents are equal exactly when their hashes are. Sealed
//! secrets differ from node to node and are no part of a content; the
//! `secret_version` inside a provider key is.

use std::collections::BTreeMap;

use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::proto::node::{Resource, ResourceRef, resource::Body};

/// What a resource is called in a [`ResourceRef`]; `None` for a resource
/// without a body, which no content may hold.
#[must_use]
pub fn kind_of(resource: &Resource) -> Option<&'static str> {
    Some(match resource.body.as_ref()? {
        Body::Tenant(_) => "tenant",
        Body::Project(_) => "project",
        Body::Bot(_) => "bot",
        Body::ProviderKey(_) => "provider_key",
        Body::Vendor(_) => "vendor",
        Body::Settings(_) => "settings",
        Body::Quota(_) => "quota",
        Body::Price(_) => "price",
    })
}

/// Why an update cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// A resource of a kind this build does not know, or without a body.
    #[error("resource {0:?} has no body of a known kind")]
    UnknownKind(String),
    /// A removal of something that is not there.
    #[error("removal of unknown {kind} {id:?}")]
    UnknownRemoval {
        /// As in the reference.
        kind: String,
        /// As in the reference.
        id: String,
    },
}

/// Resources by kind and id, each with the hash of its bytes.
#[derive(Clone, Debug, Default)]
pub struct Content {
    resources: BTreeMap<(String, String), (Resource, [u8; 32])>,
}

/// What turns one content into another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// New and altered resources.
    pub upserts: Vec<Resource>,
    /// Gone resources.
    pub removals: Vec<ResourceRef>,
}

impl Content {
    /// Adds or replaces one resource.
    ///
    /// # Errors
    /// The resource has no body of a known kind.
    pub fn upsert(&mut self, resource: Resource) -> Result<(), ContentError> {
        let kind = kind_of(&resource).ok_or_else(|| ContentError::UnknownKind(resource.id.clone()))?;
        let hash = Sha256::digest(resource.encode_to_vec()).into();
        self.resources.insert((kind.to_owned(), resource.id.clone()), (resource, hash));
        Ok(())
    }

    /// Applies a change.
    ///
    /// # Errors
    /// See [`ContentError`]; `self` may be half changed then and must be dropped.
    pub fn apply(&mut self, change: Change) -> Result<(), ContentError> {
        for ResourceRef { kind, id } in change.removals {
            let key = (kind, id);
            if self.resources.remove(&key).is_none() {
                return Err(ContentError::UnknownRemoval { kind: key.0, id: key.1 });
            }
        }
        change.upserts.into_iter().try_for_each(|resource| self.upsert(resource))
    }

    /// What must be applied to `base` to get `self`.
    #[must_use]
    pub fn change_since(&self, base: &Self) -> Change {
        let upserts = self
            .resources
            .iter()
            .filter(|(key, (_, hash))| base.resources.get(*key).is_none_or(|(_, old)| old != hash))
            .map(|(_, (resource, _))| resource.clone())
            .collect();
        let removals = base
            .resources
            .keys()
            .filter(|key| !self.resources.contains_key(*key))
            .map(|(kind, id)| ResourceRef { kind: kind.clone(), id: id.clone() })
            .collect();
        Change { upserts, removals }
    }

    /// Hex SHA-256 over kinds, ids and resource hashes in order.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut sum = Sha256::new();
        for ((kind, id), (_, hash)) in &self.resources {
            for text in [kind, id] {
                sum.update((text.len() as u64).to_be_bytes());
                sum.update(text.as_bytes());
            }
            sum.update(hash);
        }
        sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// All resources, ordered by kind and id.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values().map(|(resource, _)| resource)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::node::{Project, Tenant};

    fn tenant(id: &str, slug: &str) -> Resource {
        let body =
            Body::Tenant(Tenant { slug: slug.into(), suspended: false, time_zone: "UTC".into(), ..Tenant::default() });
        Resource { id: id.into(), body: Some(body) }
    }

    fn content(resources: &[Resource]) -> Content {
        let mut content = Content::default();
        for resource in resources {
            content.upsert(resource.clone()).expect("known kind");
        }
        content
    }

    #[test]
    fn a_change_leads_from_one_content_to_the_other() {
        let project = Resource {
            id: "prj_1".into(),
            body: Some(Body::Project(Project { tenant_id: "ten_1".into(), slug: "p".into() })),
        };
        let old = content(&[tenant("ten_1", "a"), tenant("ten_2", "b"), project]);
        let new = content(&[tenant("ten_1", "renamed"), tenant("ten_3", "c"), tenant("ten_2", "b")]);
        let change = new.change_since(&old);
        assert_eq!((change.upserts.len(), change.removals.len()), (2, 1));
        let mut patched = old.clone();
        patched.apply(change).expect("applies");
        assert_eq!(patched.hash(), new.hash());
        assert_ne!(old.hash(), new.hash());
        assert_eq!(new.change_since(&patched), Change::default());
    }

    #[test]
    fn what_cannot_be_applied_is_refused() {
        let mut empty = Content::default();
        assert!(empty.upsert(Resource { id: "x".into(), body: None }).is_err());
        let removal = ResourceRef { kind: "bot".into(), id: "bot_1".into() };
        assert!(empty.apply(Change { upserts: vec![], removals: vec![removal] }).is_err());
    }
}
