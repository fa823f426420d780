//! Where days, months and hours end, reckoned by other means: Python's `zoneinfo`
//! asked for the local time of every quarter of an hour of seven years, and where
//! the local date, month, or hour and offset changed, a period was over.

use jiff::tz::TimeZone;

use super::{Window, after, containing};
use crate::store::types::QuotaWindow;

/// One zone's periods from 2024 to 2030.
struct Calendar {
    zone: &'static str,
    /// When the first whole day begins, unix seconds.
    first: i64,
    /// Days that have not 24 hours: when they begin, and their minutes.
    days: &'static [(i64, i64)],
    /// Clock hours that have not 60 minutes.
    hours: &'static [(i64, i64)],
    /// Which day of January 2024 that is.
    first_day: i64,
}

/// When the table ends, unix seconds.
const LAST: i64 = 1924992000;

const CALENDARS: [Calendar; 10] = [
    Calendar { zone: "UTC", first: 1704067200, days: &[], hours: &[], first_day: 1 },
    Calendar {
        zone: "Europe/Berlin",
        first: 1704150000,
        days: &[
            (1711839600, 1380),
            (1729980000, 1500),
            (1743289200, 1380),
            (1761429600, 1500),
            (1774738800, 1380),
            (1792879200, 1500),
            (1806188400, 1380),
            (1824933600, 1500),
            (1837638000, 1380),
            (1856383200, 1500),
            (1869087600, 1380),
            (1887832800, 1500),
            (1901142000, 1380),
            (1919282400, 1500),
        ],
        hours: &[],
        first_day: 2,
    },
    Calendar {
        zone: "America/New_York",
        first: 1704085200,
        days: &[
            (1710046800, 1380),
            (1730606400, 1500),
            (1741496400, 1380),
            (1762056000, 1500),
            (1772946000, 1380),
            (1793505600, 1500),
            (1805000400, 1380),
            (1825560000, 1500),
            (1836450000, 1380),
            (1857009600, 1500),
            (1867899600, 1380),
            (1888459200, 1500),
            (1899349200, 1380),
            (1919908800, 1500),
        ],
        hours: &[],
        first_day: 1,
    },
    Calendar {
        zone: "America/St_Johns",
        first: 1704079800,
        days: &[
            (1710041400, 1380),
            (1730601000, 1500),
            (1741491000, 1380),
            (1762050600, 1500),
            (1772940600, 1380),
            (1793500200, 1500),
            (1804995000, 1380),
            (1825554600, 1500),
            (1836444600, 1380),
            (1857004200, 1500),
            (1867894200, 1380),
            (1888453800, 1500),
            (1899343800, 1380),
            (1919903400, 1500),
        ],
        hours: &[],
        first_day: 1,
    },
    Calendar {
        zone: "America/Havana",
        first: 1704085200,
        days: &[
            (1710046800, 1380),
            (1730606400, 1500),
            (1741496400, 1380),
            (1762056000, 1500),
            (1772946000, 1380),
            (1793505600, 1500),
            (1805000400, 1380),
            (1825560000, 1500),
            (1836450000, 1380),
            (1857009600, 1500),
            (1867899600, 1380),
            (1888459200, 1500),
            (1899349200, 1380),
            (1919908800, 1500),
        ],
        hours: &[],
        first_day: 1,
    },
    Calendar { zone: "Asia/Kathmandu", first: 1704132900, days: &[], hours: &[], first_day: 2 },
    Calendar {
        zone: "Australia/Lord_Howe",
        first: 1704114000,
        days: &[
            (1712408400, 1470),
            (1728135000, 1410),
            (1743858000, 1470),
            (1759584600, 1410),
            (1775307600, 1470),
            (1791034200, 1410),
            (1806757200, 1470),
            (1822483800, 1410),
            (1838206800, 1470),
            (1853933400, 1410),
            (1869656400, 1470),
            (1885987800, 1410),
            (1901710800, 1470),
            (1917437400, 1410),
        ],
        hours: &[
            (1712415600, 30),
            (1728142200, 30),
            (1743865200, 30),
            (1759591800, 30),
            (1775314800, 30),
            (1791041400, 30),
            (1806764400, 30),
            (1822491000, 30),
            (1838214000, 30),
            (1853940600, 30),
            (1869663600, 30),
            (1885995000, 30),
            (1901718000, 30),
            (1917444600, 30),
        ],
        first_day: 2,
    },
    Calendar {
        zone: "Pacific/Chatham",
        first: 1704104100,
        days: &[
            (1712398500, 1500),
            (1727522100, 1380),
            (1743848100, 1500),
            (1758971700, 1380),
            (1775297700, 1500),
            (1790421300, 1380),
            (1806747300, 1500),
            (1821870900, 1380),
            (1838196900, 1500),
            (1853320500, 1380),
            (1869646500, 1500),
            (1885374900, 1380),
            (1901700900, 1500),
            (1916824500, 1380),
        ],
        hours: &[
            (1712409300, 45),
            (1712412000, 15),
            (1727529300, 45),
            (1727532000, 15),
            (1743858900, 45),
            (1743861600, 15),
            (1758978900, 45),
            (1758981600, 15),
            (1775308500, 45),
            (1775311200, 15),
            (1790428500, 45),
            (1790431200, 15),
            (1806758100, 45),
            (1806760800, 15),
            (1821878100, 45),
            (1821880800, 15),
            (1838207700, 45),
            (1838210400, 15),
            (1853327700, 45),
            (1853330400, 15),
            (1869657300, 45),
            (1869660000, 15),
            (1885382100, 45),
            (1885384800, 15),
            (1901711700, 45),
            (1901714400, 15),
            (1916831700, 45),
            (1916834400, 15),
        ],
        first_day: 2,
    },
    Calendar {
        zone: "Africa/Casablanca",
        first: 1704150000,
        days: &[
            (1710025200, 1500),
            (1713052800, 1380),
            (1740265200, 1500),
            (1743897600, 1380),
            (1771110000, 1500),
            (1774137600, 1380),
            (1801954800, 1500),
            (1804982400, 1380),
            (1832194800, 1500),
            (1835827200, 1380),
            (1863039600, 1500),
            (1866067200, 1380),
            (1893279600, 1500),
            (1896912000, 1380),
            (1924124400, 1500),
        ],
        hours: &[],
        first_day: 2,
    },
    Calendar { zone: "Asia/Shanghai", first: 1704124800, days: &[], hours: &[], first_day: 2 },
];

/// When each month begins, in days since the first of January 2024.
fn months() -> Vec<i64> {
    let lengths = |year| [31, if year % 4 == 0 { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let begin = |day: &mut i64, length| Some(std::mem::replace(day, *day + length));
    (2024..=2030).flat_map(lengths).chain([31]).scan(0, begin).collect()
}

/// Walks from period to period: each must begin where the one before ends, and
/// have the length of the table.
fn walk(kind: QuotaWindow, calendar: &Calendar, usual: i64, odd: &[(i64, i64)]) -> Vec<i64> {
    const SECOND: i64 = 1_000_000;
    let zone = TimeZone::get(calendar.zone).expect("a zone");
    let mut window = containing(kind, calendar.first * SECOND, &zone);
    let mut starts = Vec::new();
    while window.start < LAST * SECOND {
        let start = window.start / SECOND;
        let minutes = odd.iter().find(|(at, _)| *at == start).map_or(usual, |(_, minutes)| *minutes);
        let wanted = Window { start: window.start, end: window.start + minutes * 60 * SECOND };
        for inside in [window.start, window.start + (window.end - window.start) / 2, window.end - 1] {
            assert_eq!(containing(kind, inside, &zone), wanted, "{kind:?} {} {start}", calendar.zone);
        }
        starts.push(start);
        window = after(kind, window, &zone).expect("it ends");
    }
    let seen = odd.iter().filter(|(at, _)| starts.contains(at)).count();
    assert_eq!(seen, odd.len(), "{kind:?} {}: every odd one is met", calendar.zone);
    starts
}

#[test]
fn seven_years_of_days_months_and_hours_end_where_another_reckoning_says() {
    for calendar in &CALENDARS {
        let days = walk(QuotaWindow::Day, calendar, 24 * 60, calendar.days);
        assert_eq!(days[0], calendar.first, "{}", calendar.zone);
        let _hours = walk(QuotaWindow::Hour, calendar, 60, calendar.hours);
        let zone = TimeZone::get(calendar.zone).expect("a zone");
        let months: Vec<i64> = (0_i64..)
            .zip(&days)
            .filter(|(_, day)| containing(QuotaWindow::Month, **day * 1_000_000, &zone).start == **day * 1_000_000)
            .map(|(at, _)| at)
            .collect();
        let last = i64::try_from(days.len()).expect("few");
        let skipped = calendar.first_day - 1;
        let wanted: Vec<i64> =
            self::months().into_iter().map(|day| day - skipped).filter(|day| (0..last).contains(day)).collect();
        assert_eq!(months, wanted, "{}", calendar.zone);
    }
}
