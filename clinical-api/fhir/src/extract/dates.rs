//! FHIR dates as ranges of milliseconds: `2024` is the whole year, an instant is one point.

use jiff::civil;

/// From the first to the last millisecond meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) lo: i64,
    pub(crate) hi: i64,
}

/// Open ends of a period. Far outside of what a FHIR date can say, and room left for arithmetic.
pub(crate) const FIRST: i64 = -(1 << 60);
pub(crate) const LAST: i64 = 1 << 60;

/// A `date`, `dateTime` or `instant`; dates without an offset are read as UTC. `None` when it is none of these.
pub(crate) fn point(text: &str) -> Option<Range> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts.next().map(|p| digits(p, 2)).map_or(Some(None), |m| m.map(Some))?;
    let day = parts.next().map(|p| digits(p, 2)).map_or(Some(None), |d| d.map(Some))?;
    if parts.next().is_some() {
        return None;
    }
    let date = civil::Date::new(
        i16::try_from(year).ok()?,
        i8::try_from(month.unwrap_or(1)).ok()?,
        i8::try_from(day.unwrap_or(1)).ok()?,
    )
    .ok()?;
    let lo = i64::from(date.since(civil::date(1970, 1, 1)).ok()?.get_days()) * 86_400_000;
    let Some(time) = time else {
        let end = match (month, day) {
            (_, Some(_)) => date.tomorrow(),
            (Some(_), None) => date.last_of_month().tomorrow(),
            (None, None) => date.last_of_year().tomorrow(),
        };
        // The last day of year 9999 has no tomorrow.
        let hi = match end {
            Ok(end) => i64::from(end.since(civil::date(1970, 1, 1)).ok()?.get_days()) * 86_400_000 - 1,
            Err(_) => lo + 86_400_000 - 1,
        };
        return Some(Range { lo, hi });
    };
    day?;
    let (clock, offset) = split_offset(time)?;
    let mut parts = clock.split(':');
    let hour = digits(parts.next()?, 2)?;
    let minute = digits(parts.next()?, 2)?;
    let second = parts.next();
    if parts.next().is_some() || hour > 23 || minute > 59 {
        return None;
    }
    let (seconds, millis, width) = match second {
        None => (0, 0, 60_000),
        Some(s) => {
            let (whole, fraction) = s.split_once('.').map_or((s, None), |(w, f)| (w, Some(f)));
            let millis = match fraction {
                None => 0,
                Some(f) if f.is_empty() || !f.bytes().all(|b| b.is_ascii_digit()) => return None,
                Some(f) => format!("{f:0<3}").get(..3)?.parse::<i64>().ok()?,
            };
            (digits(whole, 2)?, millis, if fraction.is_some() { 1 } else { 1_000 })
        }
    };
    if seconds > 60 {
        return None;
    }
    let lo = lo + (hour * 60 + minute - offset) * 60_000 + seconds * 1_000 + millis;
    Some(Range { lo, hi: lo + width - 1 })
}

/// A `Period`'s two ends, either of which may be open.
pub(crate) fn period(start: Option<&str>, end: Option<&str>) -> Option<Range> {
    let lo = start.map_or(Some(FIRST), |s| point(s).map(|r| r.lo))?;
    let hi = end.map_or(Some(LAST), |e| point(e).map(|r| r.hi))?;
    (start.is_some() || end.is_some()).then_some(Range { lo, hi })
}

fn digits(text: &str, width: usize) -> Option<i64> {
    (text.len() == width && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// Splits the offset off; minutes east of Greenwich. A missing one is UTC.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = time.find(['+', '-']) else {
        return Some((time, 0));
    };
    let (clock, offset) = time.split_at(at);
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 14 || minutes > 59 {
        return None;
    }
    let east = hours * 60 + minutes;
    Some((clock, if offset.starts_with('-') { -east } else { east }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_span_it_names() {
        let at = |t: &str| point(t).map(|r| (r.lo, r.hi));
        assert_eq!(at("1970-01-01"), Some((0, 86_399_999)));
        assert_eq!(at("1970"), Some((0, 365 * 86_400_000 - 1)));
        assert_eq!(at("1970-02"), Some((31 * 86_400_000, 59 * 86_400_000 - 1)));
        assert_eq!(at("1970-01-01T01:00:00+01:00"), Some((0, 999)));
        assert_eq!(at("1970-01-01T00:00:00.5Z"), Some((500, 500)));
        assert_eq!(at("1969-12-31T23:59Z"), Some((-60_000, -1)));
        assert!(at("9999-12-31").is_some());
        for wrong in [
            "",
            "70",
            "1970-13",
            "1970-02-30",
            "1970-1-1",
            "1970-01-01T",
            "1970-01-01T25:00",
            "1970T10:00",
            "x",
            "1970-01-01T10:00:00.Z",
            "１９７０",
            "1970-01-01T10:00+é",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
