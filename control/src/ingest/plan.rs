//! What one batch means for the database. Pure.

use std::collections::{HashMap, HashSet};

use super::decode::Record;
use crate::store::usage_ingest::{Cursor, EventRow, OpenRow};

const ABANDONED: &str = "abandoned";

/// The rows of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Exchanges that begin here and do not end here.
    pub opens: Vec<OpenRow>,
    /// Exchanges that end here, each once, in the order of their ids.
    pub events: Vec<EventRow>,
    /// Those of `events` that did not begin here, and may have an open row.
    pub settles_of_earlier: Vec<String>,
    /// `closed` or `abandoned`: what is still open in the shard will not end.
    pub ended: Option<&'static str>,
    /// How many shards the epoch has; counts when the shard has ended.
    pub shards: u32,
    /// Records that are lost.
    pub lost: i64,
    /// Why the last of them could not be read here.
    pub malformed: Option<&'static str>,
}

impl Plan {
    /// The shard had ended before: only a copy of its log goes on behind that,
    /// and it leaves nothing open either.
    pub fn of_ended(&mut self, cursor: &Cursor) {
        if self.ended.is_none() && !cursor.ended.is_empty() {
            self.ended = Some(ABANDONED);
            self.shards = u32::MAX;
        }
    }
}

/// Takes the records of a batch together, in the order of their positions.
pub fn plan(records: impl IntoIterator<Item = Record>) -> Plan {
    let records = records.into_iter();
    let mut plan = Plan { events: Vec::with_capacity(records.size_hint().1.unwrap_or(0)), ..Plan::default() };
    let mut opens: HashMap<String, OpenRow> = HashMap::new();
    let mut order = Vec::new();
    let mut settled = HashSet::new();
    for record in records {
        match record {
            Record::Open(open) => {
                if !settled.contains(&open.exchange_id) {
                    // A later one says what is held from then on.
                    let id = open.exchange_id.clone();
                    if opens.insert(id.clone(), *open).is_none() {
                        order.push(id);
                    }
                }
            }
            Record::Settle(event) => {
                let id = &event.open.exchange_id;
                if !settled.insert(id.clone()) {
                    continue;
                }
                if opens.remove(id).is_none() {
                    plan.settles_of_earlier.push(id.clone());
                }
                plan.events.push(*event);
            }
            Record::End { abandoned, shards } => {
                plan.ended = Some(if abandoned { ABANDONED } else { "closed" });
                plan.shards = shards;
            }
            Record::Folded => {}
            Record::Lost { count } => plan.lost = plan.lost.saturating_add(count),
            Record::Malformed(reason) => {
                plan.lost = plan.lost.saturating_add(1);
                plan.malformed = Some(reason);
            }
        }
    }
    // Ids sort by time, and rows are kept in the order of their ids: appending
    // is cheaper than inserting in the middle.
    plan.events.sort_unstable_by(|a, b| a.open.exchange_id.cmp(&b.open.exchange_id));
    plan.opens = order.into_iter().filter_map(|id| opens.remove(&id)).collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(id: &str) -> Record {
        Record::Open(Box::new(OpenRow { exchange_id: id.into(), ..OpenRow::default() }))
    }

    fn settle(id: &str) -> Record {
        let open = OpenRow { exchange_id: id.into(), ..OpenRow::default() };
        Record::Settle(Box::new(EventRow { open, ..EventRow::default() }))
    }

    #[test]
    fn an_exchange_that_begins_and_ends_here_is_no_open() {
        let plan = plan([open("a"), open("b"), settle("a"), settle("c"), open("d"), settle("c")]);
        let opens: Vec<_> = plan.opens.iter().map(|row| row.exchange_id.as_str()).collect();
        let events: Vec<_> = plan.events.iter().map(|row| row.open.exchange_id.as_str()).collect();
        assert_eq!((opens, events), (vec!["b", "d"], vec!["a", "c"]));
        assert_eq!(plan.settles_of_earlier, ["c"]);
        assert_eq!((plan.ended, plan.lost), (None, 0));
    }

    #[test]
    fn an_open_that_is_written_again_counts_as_written_last() {
        let again = |id: &str, key: &str| {
            let row = OpenRow { exchange_id: id.into(), provider_key_id: key.into(), ..OpenRow::default() };
            Record::Open(Box::new(row))
        };
        let plan = plan([again("a", "1"), again("b", "1"), again("a", "2"), settle("b"), again("b", "2")]);
        let opens: Vec<_> = plan.opens.iter().map(|row| (&*row.exchange_id, &*row.provider_key_id)).collect();
        assert_eq!((opens, plan.events.len()), (vec![("a", "2")], 1));
    }

    #[test]
    fn ends_and_losses_are_kept() {
        let plan =
            plan([Record::Lost { count: 3 }, Record::Malformed("bad"), Record::End { abandoned: true, shards: 2 }]);
        assert_eq!((plan.lost, plan.ended, plan.malformed), (4, Some("abandoned"), Some("bad")));
        assert_eq!(plan.shards, 2);
    }
}
