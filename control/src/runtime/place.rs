//! Which runner takes a bot. Pure.

use std::collections::BTreeMap;

use crate::store::containers::Size;
use crate::store::runners::Capacity;

/// A runner that could take one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// What it has.
    pub labels: BTreeMap<String, String>,
    /// What may be taken of it together; 0: no limit is known.
    pub capacity: Capacity,
    /// What is taken.
    pub taken: Capacity,
}

impl Candidate {
    fn has_room(&self, size: &Size) -> bool {
        let fits = |limit: u64, taken: u64, more: u64| limit == 0 || taken.saturating_add(more) <= limit;
        fits(self.capacity.cpu_millis, self.taken.cpu_millis, size.cpu_millis)
            && fits(self.capacity.memory_mb, self.taken.memory_mb, size.memory_mb)
            && fits(self.capacity.max_bots, self.taken.max_bots, 1)
    }

    /// What share of its memory is taken, in millionths; without a limit by
    /// what is taken alone.
    fn load(&self) -> u64 {
        let (taken, limit) = (self.taken.memory_mb, self.capacity.memory_mb);
        if limit == 0 { taken } else { taken.saturating_mul(1_000_000) / limit }
    }
}

/// The one with every label and room, the emptiest of them, then the first by
/// id: the same answer for the same question.
#[must_use]
pub fn choose<'a>(
    candidates: &'a [Candidate],
    labels: &BTreeMap<String, String>,
    size: &Size,
) -> Option<&'a Candidate> {
    candidates
        .iter()
        .filter(|one| labels.iter().all(|(key, value)| one.labels.get(key) == Some(value)))
        .filter(|one| one.has_room(size))
        .min_by(|a, b| a.load().cmp(&b.load()).then_with(|| a.id.cmp(&b.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(id: &str, label: &str, limit: u64, taken: u64) -> Candidate {
        Candidate {
            id: id.into(),
            labels: [("zone".to_owned(), label.to_owned())].into(),
            capacity: Capacity { memory_mb: limit, ..Capacity::default() },
            taken: Capacity { memory_mb: taken, ..Capacity::default() },
        }
    }

    #[test]
    fn labels_then_room_then_the_emptiest() {
        let zone = |name: &str| BTreeMap::from([("zone".to_owned(), name.to_owned())]);
        let of = |memory_mb| Size { memory_mb, ..Size::default() };
        let all = [runner("b", "x", 1000, 500), runner("a", "x", 1000, 500), runner("c", "y", 1000, 0)];
        let id = |labels: &BTreeMap<String, String>, size| choose(&all, labels, &size).map(|one| one.id.as_str());
        assert_eq!(id(&BTreeMap::new(), of(100)), Some("c"));
        assert_eq!(id(&zone("x"), of(500)), Some("a"));
        assert_eq!(id(&zone("x"), of(501)), None);
        assert_eq!(id(&zone("z"), of(1)), None);
        let full = [Candidate { capacity: Capacity { max_bots: 1, ..Capacity::default() }, ..runner("a", "x", 0, 0) }];
        assert!(choose(&full, &zone("x"), &of(1)).is_some());
        let taken = Candidate { taken: Capacity { max_bots: 1, ..Capacity::default() }, ..full[0].clone() };
        assert!(choose(&[taken], &zone("x"), &of(1)).is_none());
    }
}
