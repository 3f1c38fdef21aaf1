//! SenML packs (RFC 8428, JSON form): checked structurally and resolved into plain readings. Pure.
//!
//! The profile taken here is numeric measurements: each record carries `v`. A name may have two halves joined by `|`
//! (`heart-rate|8867-4`: what people call it, and its code); the bar is our one addition to the name's alphabet.

use medtech_kernel::clock::Millis;
use serde::Serialize;
use serde_json::{Map, Number, Value};

/// Records of one pack.
pub const MAX_RECORDS: usize = 200;
const MAX_NAME: usize = 128;
const MAX_UNIT: usize = 32;
/// RFC 8428 section 4.5.3: smaller times, in seconds, are relative to now.
const RELATIVE_BELOW: f64 = 268_435_456.0;
/// The version of SenML understood (section 4.4).
const VERSION: i64 = 10;

/// One resolved measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// When it was measured, by the device.
    #[serde(with = "medtech_kernel::clock::serde_rfc3339")]
    pub at: Millis,
    /// Base name and name together.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// As the device wrote it, digits and all, where no base value was added.
    pub value: Number,
}

impl Reading {
    /// The half of the name that programs go by: behind the bar where there is one.
    #[must_use]
    pub fn code(&self) -> &str {
        self.name.split_once('|').map_or(&self.name, |(_, code)| code)
    }

    /// The half that people read.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.split_once('|').map_or(&self.name, |(label, _)| label)
    }
}

/// Why a pack was refused; the text is what the device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the payload is not a JSON array of SenML records")]
    NotAPack,
    #[error("a pack holds 1 to 200 records with measurements")]
    Count,
    #[error("a field has the wrong type")]
    Type,
    #[error("a name is missing, too long, or has characters outside A-Z a-z 0-9 - : . / _ |")]
    Name,
    #[error("a unit is too long or not printable")]
    Unit,
    #[error("only numeric measurements (v) are taken")]
    Value,
    #[error("a time is out of range")]
    Time,
    #[error("a field that must be understood is not")]
    MustUnderstand,
    #[error("the pack's version is newer than 10")]
    Version,
}

/// Resolves a pack received at `now`.
pub fn parse(payload: &[u8], now: Millis) -> Result<Vec<Reading>, Refused> {
    let records: Vec<Map<String, Value>> = serde_json::from_slice(payload).map_err(|_| Refused::NotAPack)?;
    if records.is_empty() || records.len() > MAX_RECORDS {
        return Err(Refused::Count);
    }
    let mut base = Base::default();
    let mut readings = Vec::with_capacity(records.len());
    for record in &records {
        if record.keys().any(|k| k.ends_with('_')) {
            return Err(Refused::MustUnderstand);
        }
        base.take(record)?;
        readings.extend(base.resolve(record, now)?);
    }
    if readings.is_empty() {
        Err(Refused::Count)
    } else {
        Ok(readings)
    }
}

/// The base fields in force (section 4.1): each holds until the next record that sets it.
#[derive(Default)]
struct Base<'a> {
    name: &'a str,
    time: f64,
    unit: Option<&'a str>,
    value: f64,
}

impl<'a> Base<'a> {
    fn take(&mut self, record: &'a Map<String, Value>) -> Result<(), Refused> {
        if let Some(version) = record.get("bver")
            && version.as_i64().ok_or(Refused::Type)? > VERSION
        {
            return Err(Refused::Version);
        }
        if let Some(name) = text(record, "bn")? {
            self.name = name;
        }
        if let Some(time) = number(record, "bt")? {
            self.time = time;
        }
        if let Some(unit) = text(record, "bu")? {
            self.unit = Some(unit);
        }
        if let Some(value) = number(record, "bv")? {
            self.value = value;
        }
        Ok(())
    }

    fn resolve(&self, record: &Map<String, Value>, now: Millis) -> Result<Option<Reading>, Refused> {
        if ["vs", "vb", "vd", "s", "bs"].iter().any(|k| record.contains_key(*k)) {
            return Err(Refused::Value);
        }
        let name = text(record, "n")?;
        let (Some(value), Some(Value::Number(written))) = (number(record, "v")?, record.get("v")) else {
            // A record may carry base fields alone; one that names a measurement must hold it.
            return if name.is_none() { Ok(None) } else { Err(Refused::Value) };
        };
        let name = [self.name, name.unwrap_or("")].concat();
        if !valid_name(&name) {
            return Err(Refused::Name);
        }
        let unit = text(record, "u")?.or(self.unit);
        if unit.is_some_and(|u| u.is_empty() || u.len() > MAX_UNIT || !u.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Refused::Unit);
        }
        let value = if self.value == 0.0 {
            written.clone()
        } else {
            Number::from_f64(value + self.value).ok_or(Refused::Value)?
        };
        let at = absolute(self.time + number(record, "t")?.unwrap_or(0.0), now)?;
        Ok(Some(Reading {
            at,
            name,
            unit: unit.map(str::to_owned),
            value,
        }))
    }
}

/// Section 4.5.3: below 2**28 seconds a time is relative to now, negative for the past.
fn absolute(seconds: f64, now: Millis) -> Result<Millis, Refused> {
    let millis = (seconds * 1000.0).round();
    // 9999-12-31, the last day RFC 3339 can say.
    if !millis.is_finite() || millis.abs() > 253_402_300_799_000.0 {
        return Err(Refused::Time);
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range, checked above")]
    let millis = millis as i64;
    if seconds < RELATIVE_BELOW {
        now.checked_add(millis).filter(|t| *t >= 0).ok_or(Refused::Time)
    } else {
        Ok(millis)
    }
}

fn valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-:./_|".contains(&b))
        && name
            .split_once('|')
            .is_none_or(|(label, code)| !label.is_empty() && !code.is_empty() && !code.contains('|'))
}

fn text<'a>(record: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Refused> {
    record.get(key).map(|v| v.as_str().ok_or(Refused::Type)).transpose()
}

fn number(record: &Map<String, Value>, key: &str) -> Result<Option<f64>, Refused> {
    record
        .get(key)
        .map(|v| v.as_f64().filter(|n| n.is_finite()).ok_or(Refused::Type))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Millis = 1_700_000_000_000;

    #[test]
    fn the_standards_own_examples_resolve() {
        // RFC 8428 section 5.1.2 and 5.1.3.
        let one = parse(br#"[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]"#, NOW).expect("valid");
        assert_eq!(
            (one[0].at, one[0].name.as_str(), one[0].unit.as_deref()),
            (NOW, "urn:dev:ow:10e2073a01080063", Some("Cel"))
        );
        assert_eq!(one[0].value.to_string(), "23.1");
        let many = br#"[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
            "n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3}]"#;
        let many = parse(many, NOW).expect("valid");
        assert_eq!(many.len(), 3);
        assert_eq!(many[0].unit.as_deref(), Some("V"));
        assert_eq!(many[1].unit.as_deref(), Some("A"));
        assert_eq!(many[1].at, 1_276_020_071_001);
        assert_eq!(many[2].name, "urn:dev:ow:10e2073a0108006:current");
    }

    #[test]
    fn a_small_time_is_relative_and_a_base_value_is_added() {
        let readings = parse(br#"[{"bn":"heart-rate|8867-4","bv":70,"t":-2.5,"v":2}]"#, NOW).expect("valid");
        assert_eq!((readings[0].at, readings[0].value.as_f64()), (NOW - 2_500, Some(72.0)));
        assert_eq!((readings[0].code(), readings[0].label()), ("8867-4", "heart-rate"));
    }

    #[test]
    fn each_fault_is_named() {
        for (payload, fault) in [
            ("", Refused::NotAPack),
            ("{}", Refused::NotAPack),
            ("[1]", Refused::NotAPack),
            ("[]", Refused::Count),
            (r#"[{"bn":"x"}]"#, Refused::Count),
            (r#"[{"n":"x","v":"72"}]"#, Refused::Type),
            (r#"[{"n":"x","v":1e999}]"#, Refused::Type),
            (r#"[{"v":1}]"#, Refused::Name),
            (r#"[{"n":"-x","v":1}]"#, Refused::Name),
            (r#"[{"n":"a b","v":1}]"#, Refused::Name),
            (r#"[{"n":"x","u":"a b","v":1}]"#, Refused::Unit),
            (r#"[{"n":"x"}]"#, Refused::Value),
            (r#"[{"n":"x","vs":"high"}]"#, Refused::Value),
            (r#"[{"n":"x","v":1,"t":1e15}]"#, Refused::Time),
            (r#"[{"n":"x","v":1,"dose_":1}]"#, Refused::MustUnderstand),
            (r#"[{"bver":11,"n":"x","v":1}]"#, Refused::Version),
        ] {
            assert_eq!(parse(payload.as_bytes(), NOW), Err(fault), "{payload}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, NOW);
        }
    }
}
