//! Folds a batch: an OPEN whose SETTLE or a newer OPEN is in the same batch says
//! nothing that counts, and a batch takes effect as a whole; it is sent as an
//! empty record that only keeps its position. Pure.

use std::collections::HashMap;

/// Field numbers of `UsageRecord` as tags.
const OPEN: u8 = 1 << 3 | 2;
const SETTLE: u8 = 2 << 3 | 2;
/// The tag of the exchange id within both; our encoder writes it first.
const EXCHANGE_ID: u8 = 1 << 3 | 2;

/// Empties every OPEN that is settled, or written again, further on in `records`.
pub(super) fn fold(records: &mut [Vec<u8>]) {
    let mut said = Vec::new();
    let mut opens: HashMap<&[u8], usize> = HashMap::new();
    for (index, record) in records.iter().enumerate() {
        match exchange(record) {
            // A later OPEN of an exchange stands in place of an earlier one.
            Some((OPEN, id)) => said.extend(opens.insert(id, index)),
            Some((SETTLE, id)) => said.extend(opens.remove(id)),
            _ => {}
        }
    }
    for index in said {
        if let Some(record) = records.get_mut(index) {
            record.clear();
        }
    }
}

/// Kind and exchange of a record as our encoder writes it; `None` for all
/// others, which are then sent as they are.
fn exchange(record: &[u8]) -> Option<(u8, &[u8])> {
    let (&kind, rest) = record.split_first()?;
    let length_ends = rest.iter().take(5).position(|byte| byte & 0x80 == 0)?;
    let (&tag, rest) = rest.get(length_ends + 1..)?.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let id = rest.get(..usize::from(length)).filter(|_| length < 0x80)?;
    (tag == EXCHANGE_ID && !id.is_empty()).then_some((kind, id))
}

#[cfg(test)]
mod tests {
    use super::super::record::{OpenRecord, SettleRecord};
    use super::*;

    fn open(id: &str) -> Vec<u8> {
        let mut out = Vec::new();
        OpenRecord { exchange_id: id, bot_id: "bot_1", ..OpenRecord::default() }.encode(&mut out);
        out
    }

    fn settle(id: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let open = OpenRecord { exchange_id: id, bot_id: "bot_1", ..OpenRecord::default() };
        SettleRecord { open, ..SettleRecord::default() }.encode(&mut out);
        out
    }

    #[test]
    fn only_opens_that_are_settled_later_in_the_batch_are_emptied() {
        let before = [settle("req_0"), open("req_1"), open("req_2"), settle("req_1"), open("req_0"), open("req_3")];
        let mut after = before.clone();
        fold(&mut after);
        let emptied: Vec<usize> = (0..after.len()).filter(|&index| after[index].is_empty()).collect();
        assert_eq!(emptied, [1]);
        for index in [0, 2, 3, 4, 5] {
            assert_eq!(after[index], before[index]);
        }
    }

    #[test]
    fn of_two_opens_the_newer_one_counts() {
        let mut records = [open("req_1"), open("req_2"), open("req_1"), open("req_2"), settle("req_2")];
        fold(&mut records);
        let emptied: Vec<bool> = records.iter().map(Vec::is_empty).collect();
        assert_eq!(emptied, [true, true, false, true, false]);
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let before = [vec![], vec![OPEN], vec![OPEN, 0x80, 0x80], vec![SETTLE, 2, EXCHANGE_ID, 9], vec![0xff; 40]];
        let mut after = before.clone();
        fold(&mut after);
        assert_eq!(after, before);
    }
}
