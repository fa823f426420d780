//! From `period`, `granularity` and dates to instants, in the tenant's
//! calendar. Pure.

use clawgate_shared::clock;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned};

use crate::http::problem::{FieldProblem, Problem};
use crate::store::usage_query::HOUR;

/// The longest span that is summed.
const MAX_SPAN: i64 = 1100 * 24 * HOUR;
/// The most points of a trend.
const MAX_POINTS: usize = 2000;

/// Unix microseconds, from inclusive, to exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Inclusive.
    pub from: i64,
    /// Exclusive.
    pub to: i64,
}

/// A calendar unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of the tenant's clock.
    Hour,
    /// Midnight to midnight.
    Day,
    /// Monday to Monday.
    Week,
    /// First to first.
    Month,
}

impl Unit {
    /// `hour | day | week | month`
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            _ => return None,
        })
    }

    /// The start of the unit that holds `at`.
    fn floor(self, at: &Zoned) -> Result<Zoned, jiff::Error> {
        let date = at.date();
        match self {
            Self::Hour => {
                // Back to the full hour of the local clock; an offset does not
                // change within it but at its edges.
                let into = i64::from(at.minute()) * 60 + i64::from(at.second());
                let whole = Timestamp::from_second(at.timestamp().as_second())?;
                Ok((whole - SignedDuration::from_secs(into)).to_zoned(at.time_zone().clone()))
            }
            Self::Day => date.to_zoned(at.time_zone().clone()),
            Self::Week => {
                let back = i64::from(date.weekday().since(Weekday::Monday));
                date.checked_sub(back.days())?.to_zoned(at.time_zone().clone())
            }
            Self::Month => date.first_of_month().to_zoned(at.time_zone().clone()),
        }
    }

    /// `count` units after a start (before it, when negative).
    fn step(self, start: &Zoned, count: i64) -> Result<Zoned, jiff::Error> {
        let date = start.date();
        let zone = start.time_zone().clone();
        match self {
            Self::Hour => start.checked_add(SignedDuration::from_hours(count)),
            Self::Day => date.checked_add(count.days())?.to_zoned(zone),
            Self::Week => date.checked_add(count.weeks())?.to_zoned(zone),
            Self::Month => date.checked_add(count.months())?.to_zoned(zone),
        }
    }
}

/// The tenant's zone; UTC when its name is no longer known.
#[must_use]
pub fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn zoned(micros: i64, zone: &TimeZone) -> Result<Zoned, jiff::Error> {
    Ok(Timestamp::from_microsecond(micros)?.to_zoned(zone.clone()))
}

/// A day of the tenant's calendar, or an instant.
fn parse_edge(field: &str, text: &str, zone: &TimeZone) -> Result<i64, Problem> {
    // `+` of an offset arrives as a space from clients that do not escape it.
    let text = text.replace(' ', "+");
    let micros = match text.parse::<Date>() {
        Ok(date) if text.len() == 10 => date.to_zoned(zone.clone()).map(|day| day.timestamp().as_microsecond()),
        _ => clock::parse_rfc3339(&text),
    };
    micros.map_err(|_| {
        Problem::bad_parameter(
            FieldProblem::new(field, "format").saying("must be a date (2025-01-31) or an RFC 3339 time"),
        )
    })
}

fn out_of_range() -> Problem {
    Problem::bad_parameter(FieldProblem::new("startDate", "range").saying("the span does not fit the calendar"))
}

/// The span of two optional dates. What is missing is filled up: `default`
/// gives the span around now; one date alone spans as much from there.
///
/// # Errors
/// A date that is none, an empty or a too long span.
pub fn span(
    unit: Unit,
    units: i64,
    dates: (Option<&str>, Option<&str>),
    zone: &TimeZone,
    now: i64,
) -> Result<Window, Problem> {
    let start = dates.0.map(|text| parse_edge("startDate", text, zone)).transpose()?;
    let end = dates.1.map(|text| parse_edge("endDate", text, zone)).transpose()?;
    let filled = || -> Result<(i64, i64), jiff::Error> {
        let micros = |at: Zoned| at.timestamp().as_microsecond();
        Ok(match (start, end) {
            (Some(start), Some(end)) => (start, end),
            (Some(start), None) => (start, micros(unit.step(&zoned(start, zone)?, units)?)),
            (None, Some(end)) => (micros(unit.step(&zoned(end, zone)?, -units)?), end),
            (None, None) => {
                let this = unit.floor(&zoned(now, zone)?)?;
                (micros(unit.step(&this, 1 - units)?), micros(unit.step(&this, 1)?))
            }
        })
    };
    let (from, to) = filled().map_err(|_| out_of_range())?;
    if from >= to {
        return Err(Problem::bad_parameter(
            FieldProblem::new("endDate", "range").saying("must be after startDate; it is exclusive"),
        ));
    }
    if to.saturating_sub(from) > MAX_SPAN {
        return Err(Problem::bad_parameter(FieldProblem::new("startDate", "range").saying("at most 1100 days")));
    }
    Ok(Window { from, to })
}

/// The starts of all units that touch the window, in order.
///
/// # Errors
/// More than 2,000 of them.
pub fn points(unit: Unit, window: Window, zone: &TimeZone) -> Result<Vec<i64>, Problem> {
    let walk = || -> Result<Vec<i64>, jiff::Error> {
        let first = unit.floor(&zoned(window.from, zone)?)?;
        let mut points: Vec<i64> = Vec::new();
        for count in 0.. {
            let micros = unit.step(&first, count)?.timestamp().as_microsecond();
            if micros >= window.to || points.len() > MAX_POINTS {
                break;
            }
            // A day that a zone skipped starts where the next one does.
            if points.last().is_none_or(|last| *last < micros) {
                points.push(micros);
            }
        }
        Ok(points)
    };
    let points = walk().map_err(|_| out_of_range())?;
    if points.len() > MAX_POINTS {
        return Err(Problem::bad_parameter(
            FieldProblem::new("granularity", "range").saying("more than 2000 points; take a coarser one"),
        ));
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        clock::parse_rfc3339(text).expect("instant")
    }

    #[test]
    fn periods_are_the_tenants_calendar() {
        let now = at("2025-03-12T20:30:00Z");
        for (unit, units, zone_name, from, to) in [
            (Unit::Day, 1, "UTC", "2025-03-12T00:00:00Z", "2025-03-13T00:00:00Z"),
            (Unit::Day, 1, "Asia/Shanghai", "2025-03-12T16:00:00Z", "2025-03-13T16:00:00Z"),
            (Unit::Day, 1, "Asia/Kolkata", "2025-03-12T18:30:00Z", "2025-03-13T18:30:00Z"),
            (Unit::Week, 1, "UTC", "2025-03-10T00:00:00Z", "2025-03-17T00:00:00Z"),
            (Unit::Month, 1, "America/New_York", "2025-03-01T05:00:00Z", "2025-04-01T04:00:00Z"),
            (Unit::Day, 7, "UTC", "2025-03-06T00:00:00Z", "2025-03-13T00:00:00Z"),
            (Unit::Hour, 24, "Asia/Kolkata", "2025-03-11T21:30:00Z", "2025-03-12T21:30:00Z"),
        ] {
            let window = span(unit, units, (None, None), &zone(zone_name), now).expect("valid");
            let wanted = Window { from: at(from), to: at(to) };
            assert_eq!(window, wanted, "{unit:?} {zone_name}");
        }
    }

    #[test]
    fn dates_are_inclusive_and_exclusive() {
        let berlin = zone("Europe/Berlin");
        let day = |start, end| span(Unit::Day, 1, (start, end), &berlin, 0);
        // The day with 23 hours.
        let window = day(Some("2025-03-30"), Some("2025-03-31")).expect("valid");
        assert_eq!((window.to - window.from) / HOUR, 23);
        assert_eq!(day(Some("2025-03-30"), None).expect("valid"), window);
        assert_eq!(day(None, Some("2025-03-31")).expect("valid"), window);
        let instant = day(Some("2025-03-30T10:00:00+02:00"), Some("2025-03-30T08:30:00Z")).expect("valid");
        assert_eq!(instant.to - instant.from, HOUR / 2);
        assert!(day(Some("2025-03-30T10:00:00 02:00"), None).is_ok());
        for (start, end) in [("2025-03-31", "2025-03-31"), ("yesterday", "2025-03-31"), ("2015-01-01", "2025-01-01")] {
            assert_eq!(day(Some(start), Some(end)).expect_err(start).status, 400);
        }
    }

    #[test]
    fn points_follow_the_calendar() {
        let berlin = zone("Europe/Berlin");
        let window = span(Unit::Day, 1, (Some("2025-03-29"), Some("2025-04-01")), &berlin, 0).expect("valid");
        let days = points(Unit::Day, window, &berlin).expect("few");
        assert_eq!(
            days.iter().map(|day| clock::rfc3339(*day)).collect::<Vec<_>>(),
            ["2025-03-28T23:00:00.000000Z", "2025-03-29T23:00:00.000000Z", "2025-03-30T22:00:00.000000Z"]
        );
        assert_eq!(points(Unit::Hour, window, &berlin).expect("few").len(), 71);
        assert_eq!(points(Unit::Week, window, &berlin).expect("few").len(), 2);
        let long = span(Unit::Day, 1, (Some("2023-01-01"), Some("2025-01-01")), &berlin, 0).expect("valid");
        assert!(points(Unit::Hour, long, &berlin).is_err());
    }
}
