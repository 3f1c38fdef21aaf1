//! Device readings become vital-signs Observations (R4 vital signs profiles, LOINC codes, UCUM units). Pure.

use crate::fhirish::{Time, coding, reference};
use medtech_kernel::clock::{Millis, rfc3339};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

/// How far ahead of our own clock a device may be before its time is not believed.
const SKEW: Millis = 60_000;
/// How long before it was registered a device may have measured; what it dates further back is of a clock that began anew.
const BEFORE: Millis = 30 * 86_400_000;

pub(crate) const VITAL_SIGNS: &str = "vital-signs";
pub(crate) const LOINC: &str = "http://loinc.org";
pub(crate) const UCUM: &str = "http://unitsofmeasure.org";
const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";

/// One reading as the hub hands it on.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Reading {
    pub received_at: Time,
    /// When the device says it was taken; absent for a device without a clock.
    pub at: Option<Time>,
    pub name: String,
    #[serde(default)]
    pub unit: String,
    pub value: Number,
}

impl Reading {
    /// The device's own time.
    pub(crate) fn device_time(&self) -> Millis {
        self.at.map_or(self.received_at.0, |t| t.0)
    }

    /// Why the device's time is not believed, if it is not: it lies in our future, or long before the device was registered.
    fn doubt(&self, registered: Option<Millis>) -> Option<&'static str> {
        let at = self.device_time();
        if at > self.received_at.0.saturating_add(SKEW) {
            Some("its clock is ahead")
        } else if registered.is_some_and(|r| at < r.saturating_sub(BEFORE)) {
            Some("its clock is not set")
        } else {
            None
        }
    }
}

/// An Observation to be written, and its key within the device.
#[derive(Debug)]
pub(crate) struct Draft {
    pub code: String,
    pub device_time: Millis,
    /// The device's time, or where that is not believed, when it came.
    pub taken_at: Millis,
    pub received_at: Millis,
    /// Value and unit as the device gave them: with the key, what makes a reading a duplicate.
    pub measured: String,
    pub resource: Value,
}

impl Draft {
    pub(crate) fn is_clock_believed(&self) -> bool {
        self.taken_at == self.device_time
    }
}

struct Vital {
    /// The first is the one readings are keyed by.
    loinc: &'static [(&'static str, &'static str)],
    text: &'static str,
    ucum: &'static str,
    unit: &'static str,
    profile: Option<&'static str>,
    names: &'static [&'static str],
    convert: fn(&str, f64) -> Option<f64>,
}

const SYSTOLIC: &str = "8480-6";
const DIASTOLIC: &str = "8462-4";
const BLOOD_PRESSURE: &str = "85354-9";

static VITALS: &[Vital] = &[
    Vital {
        loinc: &[("8867-4", "Heart rate")],
        text: "Heart rate",
        ucum: "/min",
        unit: "beats/minute",
        profile: Some("heartrate"),
        names: &["heart-rate", "heartrate", "hr", "pulse", "pulse-rate"],
        convert: per_minute,
    },
    Vital {
        loinc: &[
            ("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry"),
            ("2708-6", "Oxygen saturation in Arterial blood"),
        ],
        text: "Oxygen saturation",
        ucum: "%",
        unit: "%",
        profile: Some("oxygensat"),
        names: &["spo2", "oxygen-saturation"],
        convert: percent,
    },
    Vital {
        loinc: &[("9279-1", "Respiratory rate")],
        text: "Respiratory rate",
        ucum: "/min",
        unit: "breaths/minute",
        profile: Some("resprate"),
        names: &["respiratory-rate", "resp-rate", "rr"],
        convert: per_minute,
    },
    Vital {
        loinc: &[("8310-5", "Body temperature")],
        text: "Body temperature",
        ucum: "Cel",
        unit: "°C",
        profile: Some("bodytemp"),
        names: &["body-temperature", "temperature", "temp"],
        convert: celsius,
    },
    Vital {
        loinc: &[(SYSTOLIC, "Systolic blood pressure")],
        text: "Systolic blood pressure",
        ucum: "mm[Hg]",
        unit: "mmHg",
        profile: None,
        names: &["systolic", "systolic-blood-pressure", "bp-systolic", "sbp"],
        convert: mmhg,
    },
    Vital {
        loinc: &[(DIASTOLIC, "Diastolic blood pressure")],
        text: "Diastolic blood pressure",
        ucum: "mm[Hg]",
        unit: "mmHg",
        profile: None,
        names: &["diastolic", "diastolic-blood-pressure", "bp-diastolic", "dbp"],
        convert: mmhg,
    },
    Vital {
        loinc: &[("29463-7", "Body weight")],
        text: "Body weight",
        ucum: "kg",
        unit: "kg",
        profile: Some("bodyweight"),
        names: &["body-weight", "weight"],
        convert: kilograms,
    },
];

/// The LOINC code and the plain name of a measurement, by the device's own name for it or by a code.
#[must_use]
pub fn describe(name: &str) -> Option<(String, String)> {
    let vital = VITALS
        .iter()
        .find(|v| v.names.contains(&name) || v.loinc.iter().any(|(code, _)| *code == name))?;
    let (code, _) = vital.loinc.first()?;
    Some(((*code).to_owned(), vital.text.to_owned()))
}

/// The Observations of one batch, in the order of the batch; a systolic and a diastolic reading of the same moment
/// become one blood pressure.
pub(crate) fn observations(batch: &[Reading], patient: &str, device: &str, registered: Option<Millis>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::with_capacity(batch.len());
    for reading in batch {
        let draft = single(reading, patient, device, registered);
        let partner = match draft.code.as_str() {
            SYSTOLIC => Some(DIASTOLIC),
            DIASTOLIC => Some(SYSTOLIC),
            _ => None,
        };
        let other = partner.and_then(|code| {
            drafts
                .iter_mut()
                .find(|d| d.code == code && d.device_time == draft.device_time)
        });
        match other {
            Some(other) => join_pressure(other, draft),
            None => drafts.push(draft),
        }
    }
    drafts
}

fn single(reading: &Reading, patient: &str, device: &str, registered: Option<Millis>) -> Draft {
    let name = reading.name.trim();
    let vital = VITALS.iter().find(|v| {
        v.loinc.iter().any(|(code, _)| *code == name) || v.names.iter().any(|n| n.eq_ignore_ascii_case(name))
    });
    let converted = vital.and_then(|v| in_ucum(v, reading).map(|value| (v, value)));
    let doubt = reading.doubt(registered);
    let taken_at = if doubt.is_some() {
        reading.received_at.0
    } else {
        reading.device_time()
    };
    let mut resource = Map::new();
    resource.insert("resourceType".into(), json!("Observation"));
    if let Some(profile) = converted.as_ref().and_then(|(v, _)| v.profile) {
        resource.insert("meta".into(), json!({"profile": [profile_url(profile)]}));
    }
    resource.insert("status".into(), json!("final"));
    if converted.is_some() {
        resource.insert("category".into(), category());
    }
    let (key, code, quantity) = match &converted {
        Some((v, value)) => {
            let codings: Vec<Value> = v.loinc.iter().map(|(c, d)| coding(LOINC, c, d)).collect();
            let key = v.loinc.first().map_or(name, |(c, _)| c).to_owned();
            let quantity = json!({"value": value, "unit": v.unit, "system": UCUM, "code": v.ucum});
            (key, json!({"coding": codings, "text": v.text}), quantity)
        }
        // Kept as it came, without a code that would claim we understood it.
        None => {
            let mut quantity = json!({"value": reading.value});
            if !reading.unit.is_empty() {
                quantity["unit"] = json!(reading.unit);
            }
            (
                name.to_owned(),
                json!({"text": if name.is_empty() { "Unnamed reading" } else { name }}),
                quantity,
            )
        }
    };
    resource.insert("code".into(), code);
    resource.insert("subject".into(), reference(&format!("Patient/{patient}")));
    resource.insert("effectiveDateTime".into(), json!(rfc3339(taken_at)));
    resource.insert("issued".into(), json!(rfc3339(reading.received_at.0)));
    resource.insert("device".into(), reference(device));
    resource.insert("valueQuantity".into(), quantity);
    if let Some(why) = doubt {
        let text = format!("The device gave {} as the time; {why}.", rfc3339(reading.device_time()));
        resource.insert("note".into(), json!([{"text": text}]));
    }
    Draft {
        code: key,
        device_time: reading.device_time(),
        taken_at,
        received_at: reading.received_at.0,
        measured: format!("{} {}", reading.value, reading.unit),
        resource: Value::Object(resource),
    }
}

/// Turns `one` (systolic or diastolic) into a blood pressure with `two` as its other component.
fn join_pressure(one: &mut Draft, two: Draft) {
    let mut components = Vec::with_capacity(2);
    one.measured = match &*one.code {
        SYSTOLIC => format!("{}/{}", one.measured, two.measured),
        _ => format!("{}/{}", two.measured, one.measured),
    };
    let (systolic, diastolic) = if one.code == SYSTOLIC {
        (&one.resource, &two.resource)
    } else {
        (&two.resource, &one.resource)
    };
    for half in [systolic, diastolic] {
        components.push(json!({"code": half["code"], "valueQuantity": half["valueQuantity"]}));
    }
    if let Value::Object(resource) = &mut one.resource {
        resource.shift_remove("valueQuantity");
        resource.insert("meta".into(), json!({"profile": [profile_url("bp")]}));
        let name = "Blood pressure panel with all children optional";
        resource.insert(
            "code".into(),
            json!({"coding": [coding(LOINC, BLOOD_PRESSURE, name)], "text": "Blood pressure"}),
        );
        resource.insert("component".into(), Value::Array(components));
    }
    one.code = BLOOD_PRESSURE.to_owned();
}

fn category() -> Value {
    json!([{"coding": [coding(CATEGORY, VITAL_SIGNS, "Vital Signs")]}])
}

fn profile_url(name: &str) -> String {
    format!("http://hl7.org/fhir/StructureDefinition/{name}")
}

/// The value in the vital's own unit; the very digits of the device where nothing has to be converted.
fn in_ucum(vital: &Vital, reading: &Reading) -> Option<Number> {
    let unit = reading.unit.trim();
    let raw = reading.value.as_f64().filter(|v| v.is_finite())?;
    let value = (vital.convert)(unit, raw)?;
    if value.to_bits() == raw.to_bits() {
        Some(reading.value.clone())
    } else {
        Number::from_f64((value * 100.0).round() / 100.0)
    }
}

fn per_minute(unit: &str, v: f64) -> Option<f64> {
    match unit {
        "" | "/min" | "1/min" | "beat/min" | "beats/min" | "breaths/min" | "{beats}/min" | "{breaths}/min" | "bpm" => {
            Some(v)
        }
        // SenML's "beat/s" and "Hz" (RFC 8428, section 12.1).
        "1/s" | "Hz" => Some(v * 60.0),
        _ => None,
    }
}

fn percent(unit: &str, v: f64) -> Option<f64> {
    match unit {
        "" | "%" => Some(v),
        // SenML's "/" is a ratio from 0 to 1.
        "/" => Some(v * 100.0),
        _ => None,
    }
}

fn celsius(unit: &str, v: f64) -> Option<f64> {
    match unit {
        "" | "Cel" | "°C" | "C" | "degC" => Some(v),
        "[degF]" | "°F" | "F" | "degF" => Some((v - 32.0) / 1.8),
        "K" => Some(v - 273.15),
        _ => None,
    }
}

fn mmhg(unit: &str, v: f64) -> Option<f64> {
    match unit {
        "" | "mm[Hg]" | "mmHg" => Some(v),
        "kPa" => Some(v * 7.500_617),
        "Pa" => Some(v * 0.007_500_617),
        _ => None,
    }
}

fn kilograms(unit: &str, v: f64) -> Option<f64> {
    match unit {
        "" | "kg" => Some(v),
        "g" => Some(v / 1000.0),
        "[lb_av]" | "lb" => Some(v * 0.453_592_37),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(name: &str, unit: &str, value: &str, at: i64, received: i64) -> Reading {
        Reading {
            received_at: Time(received),
            at: Some(Time(at)),
            name: name.into(),
            unit: unit.into(),
            value: value.parse().unwrap(),
        }
    }

    #[test]
    fn heart_rate_is_loinc_and_ucum_and_keeps_the_digits() {
        let d = observations(
            &[reading(
                "heart-rate",
                "beat/min",
                "72.50",
                1_700_000_000_000,
                1_700_000_001_000,
            )],
            "p1",
            "Device/d1",
            None,
        );
        let o = &d[0].resource;
        assert_eq!(o["code"]["coding"][0]["code"], "8867-4");
        assert_eq!(o["valueQuantity"]["value"].to_string(), "72.50");
        assert_eq!(o["valueQuantity"]["code"], "/min");
        assert_eq!(o["effectiveDateTime"], "2023-11-14T22:13:20.000Z");
        assert_eq!(o["issued"], "2023-11-14T22:13:21.000Z");
        assert_eq!(o["category"][0]["coding"][0]["code"], "vital-signs");
    }

    #[test]
    fn oxygen_saturation_carries_both_codes_and_a_ratio_becomes_percent() {
        let d = observations(&[reading("spo2", "/", "0.97", 5, 5)], "p1", "Device/d1", None);
        let o = &d[0].resource;
        let codes: Vec<&str> = o["code"]["coding"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|c| c["code"].as_str())
            .collect();
        assert_eq!(codes, ["59408-5", "2708-6"]);
        assert_eq!(o["valueQuantity"]["value"].as_f64(), Some(97.0));
    }

    #[test]
    fn both_pressures_of_one_moment_are_one_panel_in_either_order() {
        for order in [[0, 1], [1, 0]] {
            let two = [
                reading("systolic", "mmHg", "121", 9, 9),
                reading("diastolic", "mmHg", "78", 9, 9),
            ];
            let d = observations(&[two[order[0]].clone(), two[order[1]].clone()], "p", "Device/d", None);
            assert_eq!(d.len(), 1);
            assert_eq!(d[0].code, "85354-9");
            assert!(d[0].resource.get("valueQuantity").is_none());
            assert_eq!(d[0].resource["component"][0]["code"]["coding"][0]["code"], "8480-6");
            assert_eq!(
                d[0].resource["component"][0]["valueQuantity"]["value"].to_string(),
                "121"
            );
            assert_eq!(
                d[0].resource["component"][1]["valueQuantity"]["value"].to_string(),
                "78"
            );
        }
        let apart = [
            reading("systolic", "mmHg", "121", 9, 9),
            reading("diastolic", "mmHg", "78", 10, 10),
        ];
        assert_eq!(observations(&apart, "p", "Device/d", None).len(), 2);
    }

    #[test]
    fn unknown_names_and_units_are_kept_but_never_coded() {
        for (name, unit) in [("mood", ""), ("heart-rate", "mg/dL")] {
            let d = observations(&[reading(name, unit, "4", 9, 9)], "p", "Device/d", None);
            assert!(d[0].resource["code"].get("coding").is_none());
            assert!(d[0].resource.get("category").is_none());
            assert_eq!(d[0].resource["valueQuantity"]["value"].to_string(), "4");
        }
    }

    #[test]
    fn a_clock_ahead_of_ours_is_not_believed_and_a_late_reading_is() {
        let ahead = &observations(&[reading("hr", "", "70", 10_000_000, 1_000)], "p", "Device/d", None)[0];
        assert_eq!((ahead.taken_at, ahead.device_time), (1_000, 10_000_000));
        assert!(
            ahead.resource["note"][0]["text"]
                .as_str()
                .unwrap()
                .contains("clock is ahead")
        );
        let late = &observations(&[reading("hr", "", "70", 1_000, 10_000_000)], "p", "Device/d", None)[0];
        assert_eq!(late.taken_at, 1_000);
    }

    #[test]
    fn a_clock_that_began_anew_is_not_believed_and_a_reading_of_the_weeks_before_the_registration_is() {
        let (year_2000, day) = (946_684_800_000, 86_400_000);
        let registered = 1_772_442_000_000;
        for (at, believed) in [
            (year_2000, false),
            (registered - 31 * day, false),
            (registered - 29 * day, true),
            (registered + day, true),
        ] {
            let now = registered + 2 * day;
            let draft = &observations(&[reading("hr", "", "70", at, now)], "p", "Device/d", Some(registered))[0];
            assert_eq!(draft.is_clock_believed(), believed, "{at}");
            let (taken, noted) = (if believed { at } else { now }, draft.resource.get("note").is_some());
            assert_eq!((draft.taken_at, noted), (taken, !believed), "{at}");
            assert_eq!(draft.resource["effectiveDateTime"], rfc3339(taken));
        }
    }
}
