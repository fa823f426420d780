//! Numbers as vendors write them.

use clawgate_shared::pricing::ServiceTier;

use super::super::json::{Scanner, Step};

/// Reads any value as a token count: negative is zero, a fraction is cut, what
/// is no number is `None`. Never over `i64::MAX`, the widest a column holds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn count(scanner: &mut Scanner<'_>) -> Step<Option<u64>> {
    const MOST: u64 = i64::MAX as u64;
    Ok(scanner.number()?.and_then(|digits| {
        let text = std::str::from_utf8(digits).ok()?;
        if let Ok(whole) = text.parse::<u64>() {
            return Some(whole.min(MOST));
        }
        let number = text.parse::<f64>().ok().filter(|number| !number.is_nan())?;
        Some((number.max(0.0) as u64).min(MOST))
    }))
}

/// Reads what a vendor says of how it served the request.
pub(super) fn served(scanner: &mut Scanner<'_>) -> Step<Option<ServiceTier>> {
    Ok(scanner.text()?.and_then(|(text, _)| ServiceTier::served(&text)))
}

/// A count that several members may give, the lower rank being the better
/// source; of one rank the last given counts, null gives nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ranked(Option<(u8, u64)>);

impl Ranked {
    pub(super) fn offer(&mut self, rank: u8, value: Option<u64>) {
        if let Some(value) = value
            && self.0.is_none_or(|(held, _)| rank <= held)
        {
            self.0 = Some((rank, value));
        }
    }

    pub(super) fn get(self) -> Option<u64> {
        self.0.map(|(_, value)| value)
    }
}

/// Walks a value that should be an object; anything else is passed over.
pub(super) fn object_or_skip(
    scanner: &mut Scanner<'_>,
    member: impl FnMut(&mut Scanner<'_>, &[u8]) -> Step,
) -> Step<bool> {
    if scanner.next() == Some(b'{') {
        scanner.object(member)?;
        Ok(true)
    } else {
        scanner.skip()?;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_numbers() {
        for (text, want) in [
            ("0", Some(0)),
            ("-9", Some(0)),
            ("12.0", Some(12)),
            ("1e3", Some(1000)),
            ("5000000000", Some(5_000_000_000)),
            ("9223372036854775807", Some(9_223_372_036_854_775_807)),
            ("99999999999999999999", Some(9_223_372_036_854_775_807)),
            ("-1e400", Some(0)),
            ("null", None),
            ("\"12\"", None),
            ("NaN", None),
            ("[1]", None),
        ] {
            assert_eq!(count(&mut Scanner::lenient(text.as_bytes())), Ok(want), "{text}");
        }
    }
}
