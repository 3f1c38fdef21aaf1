//! What "today" is in a clinic's time zone. Pure.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use medtech_kernel::{Error, Result, clock::Millis};

/// The day `date` (`YYYY-MM-DD`; absent: the day of `now`) in `zone`, from its first instant to the first instant of
/// the next day. A day has 23 or 25 hours where the clocks change.
pub(crate) fn day(date: Option<&str>, zone: &str, now: Millis) -> Result<(Millis, Millis)> {
    let zone = TimeZone::get(zone).map_err(|e| Error::internal("appointments.zone", e))?;
    let date = match date {
        Some(text) => {
            let well_formed = text.len() == 10 && text.is_ascii();
            let parsed = well_formed.then(|| text.parse::<Date>().ok()).flatten();
            parsed.ok_or_else(|| Error::bad("appointments.date", "A date is written as 2026-03-29."))?
        }
        None => Timestamp::from_millisecond(now)
            .map_err(|e| Error::internal("appointments.now", e))?
            .to_zoned(zone.clone())
            .date(),
    };
    let bad = |_| Error::bad("appointments.date", "The date is out of range.");
    let first = |date: Date| {
        date.to_zoned(zone.clone())
            .map(|z| z.timestamp().as_millisecond())
            .map_err(bad)
    };
    Ok((first(date)?, first(date.tomorrow().map_err(bad)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use medtech_kernel::clock::{parse_rfc3339, rfc3339};

    const HOUR: Millis = 3_600_000;

    #[test]
    fn days_are_as_long_as_the_zone_makes_them() {
        // zone, day, its first instant, its length in hours (IANA time zone database)
        for (zone, date, start, hours) in [
            ("Europe/Berlin", "2026-03-28", "2026-03-27T23:00:00.000Z", 24),
            ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00.000Z", 23),
            ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00.000Z", 25),
            ("America/New_York", "2026-03-08", "2026-03-08T05:00:00.000Z", 23),
            ("America/New_York", "2026-11-01", "2026-11-01T04:00:00.000Z", 25),
            ("Asia/Kathmandu", "2026-03-29", "2026-03-28T18:15:00.000Z", 24),
            // Half an hour of change.
            ("Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00:00.000Z", 0),
            // Midnight itself does not exist: the day starts at one o'clock.
            ("America/Santiago", "2026-09-06", "2026-09-06T04:00:00.000Z", 23),
        ] {
            let (from, to) = day(Some(date), zone, 0).unwrap();
            assert_eq!(rfc3339(from), start, "{zone} {date}");
            let length = if hours == 0 { 24 * HOUR + HOUR / 2 } else { hours * HOUR };
            assert_eq!(to - from, length, "{zone} {date}");
        }
    }

    #[test]
    fn today_is_the_clinics_day_not_ours() {
        let now = parse_rfc3339("2026-03-02T23:30:00Z").unwrap();
        assert_eq!(
            rfc3339(day(None, "Europe/Berlin", now).unwrap().0),
            "2026-03-02T23:00:00.000Z"
        );
        assert_eq!(
            rfc3339(day(None, "America/New_York", now).unwrap().0),
            "2026-03-02T05:00:00.000Z"
        );
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "today",
            "2026-13-01",
            "2026-02-30",
            "2026-3-1",
            "2026-03-01T00:00",
            "-009999-01-01",
            "９999-01-01",
        ] {
            assert_eq!(
                day(Some(text), "Europe/Berlin", 0).err().map(|e| e.code),
                Some("appointments.date"),
                "{text}"
            );
        }
    }
}
