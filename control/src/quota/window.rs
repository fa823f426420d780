//! Calendar windows in the tenant's time zone. Pure and total.
//!
//! A minute or an hour is one of the local clock as long as its offset holds:
//! an hour that the clock repeats is two windows, and one that a change of
//! offset cuts is shorter. Days, weeks and months run from local midnight to
//! local midnight, whatever lies between.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::store::types::QuotaWindow;

/// Microseconds of a minute.
const MINUTE: i64 = 60_000_000;
/// Microseconds of an hour.
const HOUR: i64 = 60 * MINUTE;
/// The last instant that windows are computed for; the calendar ends near it.
const LAST: i64 = 250_000_000_000 * 1_000_000;
/// How often a guess is moved on before it is taken as it is; a clock that
/// jumps needs one or two.
const STEPS: usize = 8;

/// A span of time: `start <= t < end`, unix microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// Inclusive; 0 for the window that never ends.
    pub start: i64,
    /// Exclusive; 0: it never ends.
    pub end: i64,
}

impl Window {
    /// The one window of a quota without a calendar.
    pub const TOTAL: Self = Self { start: 0, end: 0 };

    /// Whether an instant lies in it.
    #[must_use]
    pub const fn contains(self, at: i64) -> bool {
        self.end == 0 || (self.start <= at && at < self.end)
    }

    /// Whether it is over at `now`.
    #[must_use]
    pub const fn is_over(self, now: i64) -> bool {
        self.end != 0 && self.end <= now
    }
}

/// The zone of a tenant; UTC when its name is no longer known.
#[must_use]
pub fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

/// The window of this kind that holds an instant. Instants before 1970 and
/// beyond the calendar count as its ends.
#[must_use]
pub fn containing(kind: QuotaWindow, at: i64, zone: &TimeZone) -> Window {
    let at = at.clamp(0, LAST);
    match kind {
        QuotaWindow::Minute => of_clock(MINUTE, at, zone),
        QuotaWindow::Hour => of_clock(HOUR, at, zone),
        QuotaWindow::Day | QuotaWindow::Week | QuotaWindow::Month => of_calendar(kind, at, zone),
        QuotaWindow::Total => Window::TOTAL,
    }
}

/// The window that begins where another one of this kind ends; `None` when it
/// never does.
#[must_use]
pub fn after(kind: QuotaWindow, window: Window, zone: &TimeZone) -> Option<Window> {
    (window.end != 0).then(|| containing(kind, window.end, zone))
}

fn stamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn offset(zone: &TimeZone, at: Timestamp) -> i64 {
    i64::from(zone.to_offset(at).seconds())
}

/// A unit of the local clock, cut where its offset changes.
fn of_clock(unit: i64, at: i64, zone: &TimeZone) -> Window {
    let now = stamp(at);
    let here = offset(zone, now);
    let local = at.saturating_add(here.saturating_mul(1_000_000));
    let mut start = at - local.rem_euclid(unit);
    let mut end = start + unit;
    let moment = SignedDuration::from_nanos(1);
    // A change at this very instant is one that came before it.
    let until = now.checked_add(moment).unwrap_or(now);
    for change in zone.preceding(until) {
        let micros = change.timestamp().as_microsecond();
        if micros <= start {
            break;
        }
        let before = change.timestamp().checked_sub(moment).unwrap_or(Timestamp::MIN);
        if offset(zone, before) != here {
            start = micros;
            break;
        }
    }
    for change in zone.following(now) {
        let micros = change.timestamp().as_microsecond();
        if micros >= end {
            break;
        }
        if i64::from(change.offset().seconds()) != here {
            end = micros;
            break;
        }
    }
    Window { start, end }
}

/// The first day of the unit that a date belongs to.
fn first_day(kind: QuotaWindow, date: Date) -> Date {
    match kind {
        QuotaWindow::Week => {
            let back = i64::from(date.weekday().since(Weekday::Monday));
            date.checked_sub(back.days()).unwrap_or(date)
        }
        QuotaWindow::Month => date.first_of_month(),
        _ => date,
    }
}

/// The first day of the unit `count` after this one.
fn step(kind: QuotaWindow, first: Date, count: i64) -> Date {
    let moved = match kind {
        QuotaWindow::Week => first.checked_add(count.weeks()),
        QuotaWindow::Month => first.checked_add(count.months()),
        _ => first.checked_add(count.days()),
    };
    moved.unwrap_or(first)
}

/// Local midnight, or the first instant after it when the clock skips it.
fn midnight(date: Date, zone: &TimeZone) -> i64 {
    date.to_zoned(zone.clone()).map_or(LAST, |day| day.timestamp().as_microsecond())
}

/// Between two midnights. Around a change of offset at midnight the local date
/// of an instant and the side of midnight it lies on may differ: the midnights
/// count.
fn of_calendar(kind: QuotaWindow, at: i64, zone: &TimeZone) -> Window {
    let mut first = first_day(kind, stamp(at).to_zoned(zone.clone()).date());
    for _ in 0..STEPS {
        let (start, end) = (midnight(first, zone), midnight(step(kind, first, 1), zone));
        if at < start {
            first = step(kind, first, -1);
        } else if at >= end {
            first = step(kind, first, 1);
        } else {
            return Window { start, end };
        }
    }
    Window { start: at, end: at + 1 }
}

#[cfg(test)]
#[path = "window_table.rs"]
mod table;

#[cfg(test)]
mod tests {
    use clawgate_shared::clock;
    use proptest::prelude::*;

    use super::*;

    const ZONES: [&str; 16] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "America/Sao_Paulo",
        "America/Havana",
        "Asia/Kathmandu",
        "Asia/Kolkata",
        "Asia/Shanghai",
        "Asia/Beirut",
        "Asia/Amman",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Chatham",
        "Pacific/Kwajalein",
        "Africa/Casablanca",
    ];

    fn at(text: &str) -> i64 {
        clock::parse_rfc3339(text).expect("an instant")
    }

    fn check(kind: QuotaWindow, zone_name: &str, rows: &[(&str, &str, &str)]) {
        let zone = TimeZone::get(zone_name).expect("a zone");
        for (instant, start, end) in rows {
            let wanted = Window { start: at(start), end: at(end) };
            assert_eq!(containing(kind, at(instant), &zone), wanted, "{kind:?} {zone_name} {instant}");
        }
    }

    #[test]
    fn minutes_and_hours_are_those_of_the_local_clock() {
        check(
            QuotaWindow::Minute,
            "UTC",
            &[
                ("2025-03-12T20:30:59.999999Z", "2025-03-12T20:30:00Z", "2025-03-12T20:31:00Z"),
                ("2025-03-12T20:31:00Z", "2025-03-12T20:31:00Z", "2025-03-12T20:32:00Z"),
            ],
        );
        // +5:45: its hours begin at a quarter past.
        check(
            QuotaWindow::Hour,
            "Asia/Kathmandu",
            &[("2025-03-12T20:30:00Z", "2025-03-12T20:15:00Z", "2025-03-12T21:15:00Z")],
        );
        // 02:00 to 03:00 happens twice and is two windows.
        check(
            QuotaWindow::Hour,
            "Europe/Berlin",
            &[
                ("2025-10-26T00:59:00Z", "2025-10-26T00:00:00Z", "2025-10-26T01:00:00Z"),
                ("2025-10-26T01:00:00Z", "2025-10-26T01:00:00Z", "2025-10-26T02:00:00Z"),
            ],
        );
        // At 02:00 (+11) the clock goes back to 01:30 (+10:30), and in spring
        // from 02:00 (+10:30) to 02:30 (+11).
        check(
            QuotaWindow::Hour,
            "Australia/Lord_Howe",
            &[
                ("2025-04-05T14:59:00Z", "2025-04-05T14:00:00Z", "2025-04-05T15:00:00Z"),
                ("2025-04-05T15:00:00Z", "2025-04-05T15:00:00Z", "2025-04-05T15:30:00Z"),
                ("2025-04-05T15:30:00Z", "2025-04-05T15:30:00Z", "2025-04-05T16:30:00Z"),
                ("2025-10-04T15:29:00Z", "2025-10-04T14:30:00Z", "2025-10-04T15:30:00Z"),
                ("2025-10-04T15:31:00Z", "2025-10-04T15:30:00Z", "2025-10-04T16:00:00Z"),
            ],
        );
    }

    #[test]
    fn days_have_as_many_hours_as_the_calendar_gives_them() {
        check(
            QuotaWindow::Day,
            "Europe/Berlin",
            &[
                ("2025-03-30T12:00:00Z", "2025-03-29T23:00:00Z", "2025-03-30T22:00:00Z"),
                ("2025-10-26T12:00:00Z", "2025-10-25T22:00:00Z", "2025-10-26T23:00:00Z"),
            ],
        );
        check(
            QuotaWindow::Day,
            "Australia/Lord_Howe",
            &[("2025-04-05T20:00:00Z", "2025-04-05T13:00:00Z", "2025-04-06T13:30:00Z")],
        );
        check(QuotaWindow::Day, "UTC", &[("2024-02-29T23:59:59Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z")]);
        // Midnight itself is skipped: the day begins at 01:00.
        check(
            QuotaWindow::Day,
            "America/Havana",
            &[("2025-03-09T12:00:00Z", "2025-03-09T05:00:00Z", "2025-03-10T04:00:00Z")],
        );
        // A whole day was left out.
        check(
            QuotaWindow::Day,
            "Pacific/Apia",
            &[
                ("2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
                ("2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"),
            ],
        );
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        check(
            QuotaWindow::Week,
            "UTC",
            &[
                ("2025-03-09T23:59:59Z", "2025-03-03T00:00:00Z", "2025-03-10T00:00:00Z"),
                ("2025-03-10T00:00:00Z", "2025-03-10T00:00:00Z", "2025-03-17T00:00:00Z"),
                ("2026-01-01T00:00:00Z", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"),
            ],
        );
        check(
            QuotaWindow::Month,
            "America/New_York",
            &[
                ("2025-03-12T00:00:00Z", "2025-03-01T05:00:00Z", "2025-04-01T04:00:00Z"),
                ("2024-02-29T12:00:00Z", "2024-02-01T05:00:00Z", "2024-03-01T05:00:00Z"),
            ],
        );
        assert_eq!(containing(QuotaWindow::Total, at("2025-03-12T00:00:00Z"), &TimeZone::UTC), Window::TOTAL);
        assert_eq!(after(QuotaWindow::Total, Window::TOTAL, &TimeZone::UTC), None);
    }

    fn partition(kind: QuotaWindow, zone: &TimeZone, at: i64) -> Result<(), TestCaseError> {
        let window = containing(kind, at, zone);
        prop_assert!(window.start <= at && at < window.end && window.contains(at));
        for inside in [window.start, window.end - 1] {
            prop_assert_eq!(containing(kind, inside, zone), window);
        }
        let next = after(kind, window, zone).expect("it ends");
        prop_assert_eq!(next.start, window.end);
        let before = containing(kind, window.start - 1, zone);
        prop_assert_eq!(before.end, window.start);
        Ok(())
    }

    const CALENDAR: [QuotaWindow; 5] =
        [QuotaWindow::Minute, QuotaWindow::Hour, QuotaWindow::Day, QuotaWindow::Week, QuotaWindow::Month];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn every_instant_lies_in_exactly_one_window(
            zone in 0..ZONES.len(), kind in 0..CALENDAR.len(), at in 1_000_000_000_000_000..4_000_000_000_000_000_i64,
        ) {
            partition(CALENDAR[kind], &TimeZone::get(ZONES[zone]).expect("a zone"), at)?;
        }

        #[test]
        fn also_beside_every_change_of_the_clock(
            zone in 0..ZONES.len(), nth in 0..60_usize, off in -7200..7200_i64,
        ) {
            let zone = TimeZone::get(ZONES[zone]).expect("a zone");
            let change = zone.following(stamp(600_000_000_000_000)).nth(nth).map(|change| change.timestamp());
            let at = change.map_or(1_700_000_000_000_000, Timestamp::as_microsecond) + off * 1_000_000;
            for kind in CALENDAR {
                partition(kind, &zone, at)?;
            }
        }

        #[test]
        fn no_instant_panics(kind in 0..CALENDAR.len(), at in any::<i64>()) {
            for zone in ZONES {
                let window = containing(CALENDAR[kind], at, &TimeZone::get(zone).expect("a zone"));
                prop_assert!(window.start < window.end);
            }
        }
    }
}
