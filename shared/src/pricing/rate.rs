//! One rate: money per unit, exactly.

/// Decimal places of a dollar that a rate keeps.
const PLACES: i32 = 18;
/// Significant digits that are read; what follows them is far below a place.
const MAX_DIGITS: usize = 38;
/// Exponents beyond this are nonsense (or zero).
const MAX_EXPONENT: i32 = 400;

/// Money per token or request, in 10⁻¹⁸ USD. Prices are published with at most a
/// dozen decimal places; the rest of a longer text is what a binary fraction
/// left there (`9.499999999999999e-07`) and is rounded away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// Why a text is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not digits, point and exponent.
    #[error("must be a decimal number")]
    Malformed,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// 18 USD per unit and more.
    #[error("must be below 18 USD per unit")]
    TooLarge,
}

impl Rate {
    /// Free of charge.
    pub const ZERO: Self = Self(0);

    /// Reads USD per unit: `2.5e-06`, `0.00001`, `0`.
    ///
    /// # Errors
    /// See [`RateError`].
    pub fn per_unit(text: &str) -> Result<Self, RateError> {
        parse(text, PLACES)
    }

    /// Reads USD per million units: `2.5`.
    ///
    /// # Errors
    /// See [`RateError`].
    pub fn per_million(text: &str) -> Result<Self, RateError> {
        parse(text, PLACES - 6)
    }

    /// The inverse of [`Self::per_million`]; exact.
    #[must_use]
    pub fn to_per_million(self) -> String {
        decimal(self.0, PLACES - 6)
    }

    /// The inverse of [`Self::per_unit`]; exact.
    #[must_use]
    pub fn to_per_unit(self) -> String {
        decimal(self.0, PLACES)
    }

    /// What so many units cost, in 10⁻¹⁸ USD. Never overflows.
    #[must_use]
    pub const fn times(self, units: u64) -> u128 {
        self.0 as u128 * units as u128
    }
}

fn decimal(value: u64, places: i32) -> String {
    let places = usize::try_from(places).unwrap_or(0);
    let digits = format!("{value:0>width$}", width = places + 1);
    let (whole, rest) = digits.split_at(digits.len() - places);
    match rest.trim_end_matches('0') {
        "" => whole.to_owned(),
        rest => format!("{whole}.{rest}"),
    }
}

/// The number times 10^`places`, rounded half up.
fn parse(text: &str, places: i32) -> Result<Rate, RateError> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || (number.contains('.') && fraction.is_empty()) {
        return Err(RateError::Malformed);
    }
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if unsigned.is_empty() || unsigned.len() > 6 || !plain(unsigned) {
        return Err(RateError::Malformed);
    }
    let exponent: i32 = exponent.parse().map_err(|_| RateError::Malformed)?;
    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(Rate::ZERO);
    }
    if negative {
        return Err(RateError::Negative);
    }
    let kept = significant.get(..MAX_DIGITS).unwrap_or(significant);
    let dropped = i32::try_from(significant.len() - kept.len()).map_err(|_| RateError::Malformed)?;
    let after_point = i32::try_from(fraction.len()).map_err(|_| RateError::Malformed)?;
    let mantissa: u128 = kept.parse().map_err(|_| RateError::Malformed)?;
    let power = exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT) + places + dropped - after_point;
    let value = scale(mantissa, power).ok_or(RateError::TooLarge)?;
    u64::try_from(value).map(Rate).map_err(|_| RateError::TooLarge)
}

fn scale(mantissa: u128, power: i32) -> Option<u128> {
    let factor = |power: u32| 10_u128.checked_pow(power);
    if power >= 0 {
        return mantissa.checked_mul(factor(power.unsigned_abs())?);
    }
    let Some(divisor) = factor(power.unsigned_abs()) else { return Some(0) };
    Some(mantissa / divisor + u128::from(mantissa % divisor >= divisor / 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimal_text_is_read_exactly() {
        for (text, rate) in [
            ("0", 0),
            ("0.0", 0),
            ("-0.0", 0),
            ("2.5e-06", 2_500_000_000_000),
            ("1E-05", 10_000_000_000_000),
            ("0.00001", 10_000_000_000_000),
            ("1e-18", 1),
            ("5e-19", 1),
            ("4.9e-19", 0),
            ("1e-400", 0),
            ("18.4", 18_400_000_000_000_000_000),
            ("2.0000000000000002e-07", 200_000_000_000),
            ("9.499999999999999e-07", 950_000_000_000),
            ("0.000566666666667", 566_666_666_667_000),
            ("2.857142857142857e-07", 285_714_285_714),
            ("0.00000000000000000000000000000000000000000000000001e44", 1_000_000_000_000),
        ] {
            assert_eq!(Rate::per_unit(text), Ok(Rate(rate)), "{text}");
        }
        assert_eq!(Rate::per_million("2.5"), Rate::per_unit("2.5e-06"));
        assert_eq!(Rate::per_million("0.15").map(Rate::to_per_million), Ok("0.15".to_owned()));
        assert_eq!(Rate::per_unit("18").map(Rate::to_per_unit), Ok("18".to_owned()));
        assert_eq!(Rate::per_unit("1e-18").map(Rate::to_per_unit), Ok("0.000000000000000001".to_owned()));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for (text, error) in [
            ("", RateError::Malformed),
            (".5", RateError::Malformed),
            ("5.", RateError::Malformed),
            ("1e", RateError::Malformed),
            ("1e1.5", RateError::Malformed),
            ("+1", RateError::Malformed),
            (" 1", RateError::Malformed),
            ("0x1", RateError::Malformed),
            ("NaN", RateError::Malformed),
            ("1e9999999", RateError::Malformed),
            ("-1e-06", RateError::Negative),
            ("18.5", RateError::TooLarge),
            ("1e300", RateError::TooLarge),
            ("99999999999999999999999999999999999999999", RateError::TooLarge),
        ] {
            assert_eq!(Rate::per_unit(text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(value: u64) {
            let rate = Rate(value);
            prop_assert_eq!(Rate::per_million(&rate.to_per_million()), Ok(rate));
            prop_assert_eq!(Rate::per_unit(&rate.to_per_unit()), Ok(rate));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9.eE]{0,60}") {
            let _ = Rate::per_unit(&text);
        }
    }
}
