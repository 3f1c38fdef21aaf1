//! Search against brute force over a synthetic population.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use crate::common::{Client, population, site};
use medtech_kernel::{
    Result,
    auth::Role,
    db::Engine,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SCHEMA: &[&[medtech_kernel::Migration]] = &[medtech_fhir::MIGRATIONS];
const PATIENTS: usize = 10;

/// Everything that was stored.
struct People(Vec<Value>);

impl People {
    fn of<'a>(&'a self, ty: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |r| r["resourceType"] == ty)
    }

    fn ids<'a>(&'a self, ty: &'a str, fits: impl Fn(&Value) -> bool) -> BTreeSet<String> {
        self.of(ty)
            .filter(|r| fits(r))
            .map(|r| r["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn get(&self, reference: &str) -> &Value {
        self.0
            .iter()
            .find(|r| reference == format!("{}/{}", r["resourceType"].as_str().unwrap(), r["id"].as_str().unwrap()))
            .unwrap()
    }
}

fn codings(concept: &Value) -> Vec<(String, String)> {
    let list = concept["coding"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|c| {
            (
                c["system"].as_str().unwrap_or("").to_owned(),
                c["code"].as_str().unwrap_or("").to_owned(),
            )
        })
        .collect()
}

fn subject(r: &Value) -> &str {
    r["subject"]["reference"].as_str().unwrap_or("")
}

/// All pages of a search, three at a time: no resource twice, none lost.
async fn all(c: &Client, query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let sign = if query.contains('?') { '&' } else { '?' };
    let mut next = Some(format!("{query}{sign}_count=7"));
    while let Some(url) = next {
        let page = c.get(&url).await;
        assert_eq!(page.status, 200, "{url}: {}", page.text);
        for id in page.ids() {
            assert!(found.insert(id.clone()), "{query}: {id} twice");
        }
        next = page.link("next");
    }
    let total = c
        .get(&format!("{query}{sign}_total=accurate&_count=1"))
        .await
        .at("/total");
    assert_eq!(total, found.len(), "{query}: the total");
    assert_eq!(
        c.get(&format!("{query}{sign}_summary=count")).await.at("/total"),
        total,
        "{query}"
    );
    found
}

fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// First and last millisecond of a year, month, day or second.
fn span(text: &str) -> (i64, i64) {
    let next = |from: &str, step: jiff::Span| {
        let day: jiff::civil::Date = from.parse().unwrap();
        at(&format!("{}T00:00:00Z", day.checked_add(step).unwrap())) - 1
    };
    match text.len() {
        4 => (
            at(&format!("{text}-01-01T00:00:00Z")),
            next(&format!("{text}-01-01"), jiff::Span::new().years(1)),
        ),
        7 => (
            at(&format!("{text}-01T00:00:00Z")),
            next(&format!("{text}-01"), jiff::Span::new().months(1)),
        ),
        10 => (at(&format!("{text}T00:00:00Z")), next(text, jiff::Span::new().days(1))),
        _ => (at(text), at(text) + 999),
    }
}

/// R4's table of prefixes.
fn date_fits(prefix: &str, (lo, hi): (i64, i64), (start, end): (i64, i64)) -> bool {
    let inside = start <= lo && hi <= end;
    match prefix {
        "" | "eq" => inside,
        "ne" => !inside,
        "gt" => hi > end,
        "lt" => lo < start,
        "ge" => hi > end || inside,
        "le" => lo < start || inside,
        "sa" => lo > end,
        "eb" => hi < start,
        other => panic!("{other}"),
    }
}

async fn load(c: &Client) -> People {
    let mut dice = population::Dice(7);
    let mut people = population::house();
    for n in 0..PATIENTS {
        people.extend(population::patient(&mut dice, n));
    }
    // References may come before what they point at.
    people.reverse();
    for part in people.chunks(60) {
        let entry: Vec<Value> = part.iter().map(|r| json!({"resource": r, "request": {"method": "PUT", "url": format!("{}/{}", r["resourceType"].as_str().unwrap(), r["id"].as_str().unwrap())}})).collect();
        let answer = c
            .post(
                "",
                &json!({"resourceType": "Bundle", "type": "transaction", "entry": entry}),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    People(people)
}

async fn brute_force(world: &World) -> Result<()> {
    let s = site(world);
    let c = s.client(world, &world.north, Role::Clinician).await?;
    let people = load(&c).await;
    // Another clinic with other people under the same ids.
    let other = s.client(world, &world.south, Role::Clinician).await?;
    other
        .put(
            "Patient/pat-1",
            &json!({"resourceType": "Patient", "id": "pat-1", "gender": "male", "name": [{"family": "Smith"}]}),
        )
        .await;
    let mut dice = population::Dice(99);

    for ty in [
        "Patient",
        "Observation",
        "Encounter",
        "Condition",
        "MedicationRequest",
        "Appointment",
    ] {
        assert_eq!(all(&c, ty).await, people.ids(ty, |_| true), "{ty}");
    }
    // Tokens
    for gender in ["male", "female", "other", "unknown"] {
        assert_eq!(
            all(&c, &format!("Patient?gender={gender}")).await,
            people.ids("Patient", |p| p["gender"] == gender)
        );
        assert_eq!(
            all(&c, &format!("Patient?gender:not={gender}")).await,
            people.ids("Patient", |p| p["gender"] != gender)
        );
    }
    assert_eq!(
        all(&c, "Patient?gender=male,other").await,
        people.ids("Patient", |p| p["gender"] == "male" || p["gender"] == "other")
    );
    assert_eq!(
        all(&c, "Patient?active=false").await,
        people.ids("Patient", |p| p["active"] == false)
    );
    assert_eq!(all(&c, "Patient?deceased=false").await, people.ids("Patient", |_| true));
    let mrn = "urn:oid:1.2.36.146.595.217.0.1";
    assert_eq!(
        all(&c, &format!("Patient?identifier={mrn}|MRN000014")).await,
        BTreeSet::from(["pat-2".to_owned()])
    );
    assert_eq!(all(&c, "Patient?identifier=MRN000014,MRN000021").await.len(), 2);
    assert_eq!(all(&c, &format!("Patient?identifier={mrn}|")).await.len(), PATIENTS);
    assert_eq!(all(&c, "Patient?identifier=urn:wrong|MRN000014").await.len(), 0);
    assert_eq!(
        all(&c, "Patient?email=P3@EXAMPLE.ORG").await,
        BTreeSet::from(["pat-3".to_owned()])
    );
    let observations: Vec<&Value> = people.of("Observation").collect();
    for _ in 0..25 {
        let o = observations[dice.below(observations.len())];
        let (system, code) = codings(&o["code"])[0].clone();
        let patient = subject(o).to_owned();
        let bare = patient.trim_start_matches("Patient/").to_owned();
        let same_code = |r: &Value| codings(&r["code"]).contains(&(system.clone(), code.clone()));
        assert_eq!(
            all(&c, &format!("Observation?code={system}|{code}")).await,
            people.ids("Observation", same_code)
        );
        assert_eq!(
            all(&c, &format!("Observation?code={code}&subject={patient}")).await,
            people.ids("Observation", |r| same_code(r) && subject(r) == patient)
        );
        assert_eq!(
            all(
                &c,
                &format!("Observation?patient={bare}&code={system}|{code}&status=final")
            )
            .await,
            people.ids("Observation", |r| same_code(r)
                && subject(r) == patient
                && r["status"] == "final")
        );
        assert_eq!(all(&c, &format!("Observation?code=urn:other|{code}")).await.len(), 0);
        assert_eq!(
            all(&c, &format!("Patient?_has:Observation:patient:code={system}|{code}")).await,
            people.ids("Patient", |p| people.of("Observation").any(
                |o| same_code(o) && subject(o).ends_with(&format!("/{}", p["id"].as_str().unwrap()))
            ))
        );
        // Dates
        let when = o["effectiveDateTime"].as_str().unwrap();
        let value = match dice.below(4) {
            0 => when[..4].to_owned(),
            1 => when[..7].to_owned(),
            2 => when[..10].to_owned(),
            _ => when.to_owned(),
        };
        let prefix = dice.pick(&["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"]);
        let asked = span(&value);
        let query = value.replace('+', "%2B");
        let dated = |r: &Value| {
            r["effectiveDateTime"]
                .as_str()
                .is_some_and(|w| date_fits(prefix, span(w), asked))
        };
        assert_eq!(
            all(&c, &format!("Observation?date={prefix}{query}")).await,
            people.ids("Observation", dated),
            "{prefix}{value}"
        );
        assert_eq!(
            all(
                &c,
                &format!("Observation?patient={bare}&date={prefix}{query}&category=laboratory")
            )
            .await,
            people.ids("Observation", |r| dated(r)
                && subject(r) == patient
                && codings(&r["category"][0]).iter().any(|(_, c)| c == "laboratory")),
            "{prefix}{value}"
        );
        let during = |r: &Value| {
            let (lo, hi) = (
                at(r["period"]["start"].as_str().unwrap()),
                at(r["period"]["end"].as_str().unwrap()) + 999,
            );
            date_fits(prefix, (lo, hi), asked)
        };
        assert_eq!(
            all(&c, &format!("Encounter?date={prefix}{query}")).await,
            people.ids("Encounter", during),
            "{prefix}{value}"
        );
        assert_eq!(
            all(&c, &format!("Condition?onset-date={prefix}{query}")).await,
            people.ids("Condition", |r| date_fits(
                prefix,
                span(r["onsetDateTime"].as_str().unwrap()),
                asked
            )),
            "{prefix}{value}"
        );
        // Quantities
        if let Some(number) = o["valueQuantity"]["value"].as_f64() {
            let unit = o["valueQuantity"]["code"].as_str().unwrap();
            let text = o["valueQuantity"]["value"].to_string();
            let half = 0.5 * 10_f64.powi(-(text.split_once('.').map_or(0, |(_, d)| d.len()) as i32));
            let prefix = dice.pick(&["", "ne", "gt", "lt", "ge", "le"]);
            let fits = |v: f64| match prefix {
                "" => v >= number - half && v < number + half,
                "ne" => !(v >= number - half && v < number + half),
                "gt" => v > number,
                "lt" => v < number,
                "ge" => v >= number,
                _ => v <= number,
            };
            let unit_query = unit.replace('%', "%25").replace('/', "%2F");
            let expected = people.ids("Observation", |r| {
                r["valueQuantity"]["code"] == unit && r["valueQuantity"]["value"].as_f64().is_some_and(fits)
            });
            assert_eq!(
                all(
                    &c,
                    &format!("Observation?value-quantity={prefix}{text}|http://unitsofmeasure.org|{unit_query}")
                )
                .await,
                expected,
                "{prefix}{text} {unit}"
            );
            let expected = people.ids("Observation", |r| {
                r["valueQuantity"]["value"].as_f64().is_some_and(fits)
            });
            assert_eq!(
                all(&c, &format!("Observation?value-quantity={prefix}{text}")).await,
                expected,
                "{prefix}{text}"
            );
        }
    }
    assert_eq!(
        all(&c, "Observation?combo-code=8480-6&component-value-quantity=gt130").await,
        people.ids("Observation", |r| r["component"].as_array().is_some_and(|l| l
            .iter()
            .any(|p| p["valueQuantity"]["value"].as_f64().unwrap() > 130.0)))
    );
    // Strings
    let family = |p: &Value| p["name"][0]["family"].as_str().unwrap().to_owned();
    for (query, wanted) in [
        ("smith", vec!["Smith"]),
        ("SM", vec!["Smith", "Smythe"]),
        ("mull", vec!["Müller"]),
        ("ångs", vec!["Ångström"]),
        ("nguyen", vec!["Nguyễn"]),
        ("o%27b", vec!["O'Brien"]),
    ] {
        assert_eq!(
            all(&c, &format!("Patient?family={query}")).await,
            people.ids("Patient", |p| wanted.contains(&family(p).as_str())),
            "{query}"
        );
    }
    // The middle of a name is not found where names are blinded, and the answer says so.
    match world.ctx.db.engine() {
        Engine::Sqlite => assert_eq!(
            all(&c, "Patient?family:contains=ström,YTH").await,
            people.ids("Patient", |p| ["Ångström", "Smythe"].contains(&family(p).as_str()))
        ),
        Engine::Postgres => {
            let refused = c.get("Patient?family:contains=YTH").await;
            assert_eq!(
                (refused.status.as_u16(), refused.at("/issue/0/code")),
                (400, json!("not-supported"))
            );
            let names = "SELECT norm FROM fhir_str s JOIN fhir_res r ON r.tenant = $1 AND r.rid = s.rid
                JOIN fhir_pc p ON p.tenant = $1 AND p.rid = r.rid WHERE s.tenant = $1";
            let rows = world.ctx.db.query(world.north.id, names, &[]).await.unwrap();
            let blind = |n: &str| n.len() == 33 && n[1..].bytes().all(|b| b.is_ascii_hexdigit());
            assert!(!rows.is_empty() && rows.iter().all(|r| blind(r.text(0).unwrap())));
        }
    }
    assert_eq!(
        all(&c, "Patient?family:exact=Müller").await,
        people.ids("Patient", |p| family(p) == "Müller")
    );
    assert_eq!(all(&c, "Patient?family:exact=Muller").await.len(), 0);
    assert_eq!(
        all(&c, "Patient?address-city=z%C3%BC&gender=female").await,
        people.ids("Patient", |p| p["address"][0]["city"] == "Zürich"
            && p["gender"] == "female")
    );
    // Chains
    for name in ["smith", "ka", "gar"] {
        let expected = people.ids("Observation", |r| {
            let folded = family(people.get(subject(r))).to_lowercase().replace('í', "i");
            folded.starts_with(name)
        });
        assert_eq!(
            all(&c, &format!("Observation?subject:Patient.family={name}")).await,
            expected
        );
        assert_eq!(
            all(&c, &format!("Observation?patient.family={name}&status=final")).await,
            expected
                .iter()
                .filter(|id| people.get(&format!("Observation/{id}"))["status"] == "final")
                .cloned()
                .collect()
        );
    }
    assert_eq!(
        all(&c, "Patient?general-practitioner=Practitioner/doc-0").await,
        people.ids("Patient", |p| p["generalPractitioner"][0]["reference"]
            == "Practitioner/doc-0")
    );
    assert_eq!(
        all(&c, "Appointment?actor=Patient/pat-4&status:not=cancelled").await,
        people.ids("Appointment", |r| r["participant"][0]["actor"]["reference"]
            == "Patient/pat-4"
            && r["status"] != "cancelled")
    );
    // Missing
    assert_eq!(
        all(&c, "Observation?value-quantity:missing=true").await,
        people.ids("Observation", |r| r.get("valueQuantity").is_none())
    );
    assert_eq!(
        all(&c, "Observation?performer:missing=false").await,
        people.ids("Observation", |r| r.get("performer").is_some())
    );
    assert_eq!(all(&c, "Patient?death-date:missing=false").await.len(), 0);
    assert_eq!(all(&c, "Patient?_id=pat-1,pat-5,nobody").await.len(), 2);
    assert_eq!(
        all(&c, "Patient?_lastUpdated=ge2026-03-02&_lastUpdated=lt2026-03-03")
            .await
            .len(),
        PATIENTS
    );
    assert_eq!(all(&c, "Patient?_lastUpdated=gt2026-03-02").await.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn search_agrees_with_brute_force() {
    on_both_engines(SCHEMA, |w| Box::pin(brute_force(w))).await;
}

async fn order(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Clinician).await?;
    let people = load(&c).await;
    let mut newest: Vec<(i64, &str)> = people
        .of("Observation")
        .map(|o| (at(o["effectiveDateTime"].as_str().unwrap()), o["id"].as_str().unwrap()))
        .collect();
    newest.sort_unstable();
    for (sort, ascending) in [("_sort=date", true), ("_sort=-date", false), ("", false)] {
        let mut dates = Vec::new();
        let mut next = Some(format!("Observation?{sort}&_count=10"));
        while let Some(url) = next {
            let page = c.get(&url).await;
            dates.extend(
                page.json()["entry"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|e| at(e["resource"]["effectiveDateTime"].as_str().unwrap())),
            );
            // Something new in front of the page must not move what follows.
            if dates.len() == 20 && !ascending {
                c.post("Observation", &json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "effectiveDateTime": "2099-01-01T00:00:00Z"})).await;
            }
            next = page.link("next");
        }
        let mut expected: Vec<i64> = newest.iter().map(|(at, _)| *at).collect();
        if !ascending {
            expected.reverse();
        }
        dates.retain(|d| *d < at("2098-01-01T00:00:00Z"));
        assert_eq!(dates, expected, "{sort}");
    }
    world.ctx.clock.advance(60_000);
    let mut pat3 = people.get("Patient/pat-3").clone();
    pat3["gender"] = json!("male");
    assert_eq!(c.put("Patient/pat-3", &pat3).await.status, 200);
    assert_eq!(c.get("Patient?_sort=-_lastUpdated&_count=1").await.ids(), ["pat-3"]);
    assert_eq!(
        c.get("Patient?_sort=-_lastUpdated&gender=male&_count=1").await.ids(),
        ["pat-3"]
    );
    assert_eq!(
        c.get("Patient?_sort=_lastUpdated&_count=100")
            .await
            .ids()
            .last()
            .unwrap(),
        "pat-3"
    );
    assert_eq!(
        c.get("Patient?_lastUpdated=gt2026-03-02T09:00:59Z").await.ids(),
        ["pat-3"]
    );
    assert_eq!(
        c.get("Patient?_lastUpdated=gt2026-03-02T09:00:30Z&gender=male")
            .await
            .ids(),
        ["pat-3"]
    );

    let page = c
        .get("Observation?_id=obs-1-2&_include=Observation:subject&_include=Observation:performer")
        .await
        .json();
    let modes: Vec<(&str, &str)> = page["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            (
                e["resource"]["resourceType"].as_str().unwrap(),
                e["search"]["mode"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        modes,
        [
            ("Observation", "match"),
            ("Patient", "include"),
            ("Practitioner", "include")
        ]
    );
    let with = c
        .get("Patient?_id=pat-2&_revinclude=Condition:subject&_revinclude=Encounter:patient")
        .await;
    let expected = people.ids("Condition", |r| subject(r) == "Patient/pat-2").len()
        + people.ids("Encounter", |r| subject(r) == "Patient/pat-2").len();
    assert_eq!(with.ids().len(), 1 + expected);
    let part = c
        .get("Patient?_id=pat-2&_elements=gender")
        .await
        .at("/entry/0/resource");
    assert!(part["gender"].is_string() && part.get("name").is_none() && part["meta"]["tag"][0]["code"] == "SUBSETTED");

    // Every row an update or a delete leaves behind would be found here.
    let n = |table: &str| format!("SELECT COUNT(*) FROM {table} WHERE tenant = $1");
    for r in &people.0 {
        let place = format!("{}/{}", r["resourceType"].as_str().unwrap(), r["id"].as_str().unwrap());
        assert_eq!(c.delete(&place).await.status, 204);
    }
    for id in c.get("Observation").await.ids() {
        c.delete(&format!("Observation/{id}")).await;
    }
    for table in [
        "fhir_tok", "fhir_ref", "fhir_pc", "fhir_dat", "fhir_str", "fhir_qty", "fhir_uri",
    ] {
        let row = world
            .ctx
            .db
            .query_one(world.north.id, medtech_kernel::db::Sql::built(n(table)), &[])
            .await?;
        assert_eq!(row.i64(0)?, 0, "{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_keep_their_order_and_nothing_is_left_behind() {
    on_both_engines(SCHEMA, |w| Box::pin(order(w))).await;
}
