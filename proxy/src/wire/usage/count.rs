//! Numbers as vendors write them.

use clawgate_shared::pricing::ServiceTier;

use super::super::json::{Scanner, Step};

/// The largest count that is believed: what every JSON number can say exactly.
/// A thousand of them still fit together into a column.
pub(super) const MOST: u64 = 1 << 53;

/// Reads any value as a token count: negative is zero, a fraction is cut, more
/// than [`MOST`] is that, and the scanner notes each of the three. What is no
/// number is `None`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub(super) fn count(scanner: &mut Scanner<'_>) -> Step<Option<u64>> {
    let Some(digits) = scanner.number()? else { return Ok(None) };
    // Nearly all are small and whole: 15 digits are less than MOST.
    if digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit) {
        return Ok(Some(digits.iter().fold(0, |sum, digit| 10 * sum + u64::from(digit - b'0'))));
    }
    let text = std::str::from_utf8(digits).unwrap_or_default();
    if let Ok(whole) = text.parse::<u64>() {
        if whole > MOST {
            scanner.doubt();
        }
        return Ok(Some(whole.min(MOST)));
    }
    let Some(number) = text.parse::<f64>().ok().filter(|number| !number.is_nan()) else { return Ok(None) };
    if number < 0.0 || number > MOST as f64 || number.fract() != 0.0 {
        scanner.doubt();
    }
    Ok(Some((number.max(0.0) as u64).min(MOST)))
}

/// The sum, absent only when both are.
pub(super) const fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    }
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
        for (text, want, odd) in [
            ("0", Some(0), false),
            ("-9", Some(0), true),
            ("12.0", Some(12), false),
            ("12.7", Some(12), true),
            ("1e3", Some(1000), false),
            ("5000000000", Some(5_000_000_000), false),
            ("9007199254740992", Some(MOST), false),
            ("9007199254740993", Some(MOST), true),
            ("9223372036854775807", Some(MOST), true),
            ("99999999999999999999", Some(MOST), true),
            ("1e400", Some(MOST), true),
            ("-1e400", Some(0), true),
            ("null", None, false),
            ("\"12\"", None, false),
            ("NaN", None, false),
            ("[1]", None, false),
        ] {
            let mut scanner = Scanner::lenient(text.as_bytes());
            assert_eq!(count(&mut scanner), Ok(want), "{text}");
            assert_eq!(scanner.doubted(), odd, "{text}");
        }
    }
}
