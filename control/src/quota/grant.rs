//! How much of a window's remainder one node gets. Pure.

/// A window as a node asks for more of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What the node would like.
    pub want: i64,
    /// Less than this is of no use to it.
    pub least: i64,
    /// What is neither settled nor outstanding.
    pub remaining: i64,
    /// Other nodes that asked for this window lately, or hold some of it.
    pub others: i64,
}

/// The amount to grant; 0: nothing. Never more than remains, never less than
/// `least`, which would be outstanding and of no use.
///
/// A node that is alone gets what it wants. With others about, nobody takes
/// more than half of its fair share at a time, so that slices shrink with the
/// remainder and the last tokens are not stuck with one of them.
#[must_use]
pub fn size(ask: Ask) -> i64 {
    let (remaining, least) = (ask.remaining.max(0), ask.least.max(1));
    if ask.want <= 0 || remaining < least {
        return 0;
    }
    let want = ask.want.max(least).min(remaining);
    if ask.others <= 0 {
        return want;
    }
    let nodes = ask.others.saturating_add(1);
    let share = remaining / nodes.saturating_mul(2);
    want.min(share.max(least))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slices_shrink_with_the_remainder_and_are_never_useless() {
        for (want, least, remaining, others, granted) in [
            (1000, 100, 100_000, 0, 1000),
            (200_000, 100, 100_000, 0, 100_000),
            (1000, 100, 100, 0, 100),
            (1000, 100, 99, 0, 0),
            (0, 100, 100_000, 0, 0),
            (50_000, 100, 100_000, 1, 25_000),
            (50_000, 100, 100_000, 2, 16_666),
            (1000, 100, 100_000, 2, 1000),
            (1000, 900, 2000, 2, 900),
            (1000, 900, 900, 9, 900),
            (10, 900, 2000, 0, 900),
            (1000, 900, 899, 9, 0),
            (1000, 0, 1, 3, 1),
            (1000, 1, -5, 0, 0),
            (i64::MAX, i64::MAX, i64::MAX, i64::MAX, i64::MAX),
        ] {
            let ask = Ask { want, least, remaining, others };
            assert_eq!(size(ask), granted, "{ask:?}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_remains_and_never_less_than_useful(
            want in any::<i64>(), least in any::<i64>(), remaining in any::<i64>(), others in any::<i64>(),
        ) {
            let granted = size(Ask { want, least, remaining, others });
            prop_assert!(granted >= 0 && granted <= remaining.max(0));
            prop_assert!(granted == 0 || granted >= least.max(1));
            prop_assert_eq!(granted == 0, want <= 0 || remaining.max(0) < least.max(1));
        }
    }
}
