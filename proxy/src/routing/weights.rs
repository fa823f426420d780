//! Shares as a sequence of turns: smooth, so that a heavy key's turns are spread
//! among the others', and made once per snapshot, so that a turn is one index.

/// Longest sequence; weights are rounded to fit.
const LONGEST: u64 = 1024;

/// Which key (an index into `weights`) has each turn. Every key has one; a weight
/// of 0 counts as 1.
#[must_use]
pub fn schedule(weights: &[u32]) -> Box<[u32]> {
    let mut weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight).max(1)).collect();
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    weights.iter_mut().for_each(|weight| *weight /= divisor);
    let sum: u64 = weights.iter().sum();
    if sum > LONGEST {
        weights.iter_mut().for_each(|weight| *weight = ((*weight * LONGEST + sum / 2) / sum).max(1));
    }
    let total: i64 = weights.iter().map(|weight| signed(*weight)).sum();
    let mut credit: Vec<i64> = vec![0; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        credit.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += signed(*weight));
        // The first of those with the most.
        let most = credit.iter_mut().enumerate().rev().max_by_key(|(_, credit)| **credit);
        if let Some((at, credit)) = most {
            *credit -= total;
            turns.extend(u32::try_from(at));
        }
    }
    turns.into()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn signed(weight: u64) -> i64 {
    i64::try_from(weight).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turns_are_spread() {
        assert_eq!(*schedule(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(*schedule(&[100, 300]), [1, 0, 1, 1]);
        assert!(schedule(&[]).is_empty());
        assert_eq!(*schedule(&[0]), [0]);
    }

    proptest! {
        #[test]
        fn shares_are_kept_and_nobody_is_left_out(weights in prop::collection::vec(1_u32..=1000, 1..12)) {
            let turns = schedule(&weights);
            let sum: u32 = weights.iter().sum();
            for (at, weight) in weights.iter().enumerate() {
                let given = turns.iter().filter(|turn| **turn as usize == at).count();
                let due = f64::from(*weight) / f64::from(sum) * turns.len() as f64;
                prop_assert!(given >= 1 && (given as f64 - due).abs() <= 1.5 + due * 0.02, "{given} for {due}");
            }
        }
    }
}
