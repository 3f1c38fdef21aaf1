//! A narrative that could run or fetch something is refused at every door that writes, and nothing of it is kept.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::common::site;
use medtech_kernel::{
    Result,
    auth::Role,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

const SCHEMA: &[&[medtech_kernel::Migration]] = &[medtech_fhir::MIGRATIONS];

fn patient(inside: &str) -> Value {
    let div = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inside}</div>");
    json!({"resourceType": "Patient", "text": {"status": "generated", "div": div}})
}

async fn doors(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Clinician).await?;
    let fine = patient("<p>Fine, with <a href=\"https://example.org\">a link</a> and &lt;b&gt; as text</p>");
    let made = c.post("Patient", &fine).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.at("/text/div"), fine["text"]["div"]);
    let id = made.at("/id").as_str().unwrap().to_owned();
    for inside in [
        "<script>alert(1)</script>",
        "<img src=\"https://evil.example/x.gif\"/>",
        "<p onclick=\"x()\">x</p>",
        "<a href=\"javascript:x()\">x</a>",
        "<p style=\"background: url(x)\">x</p>",
        "<form action=\"x\"><b>x</b></form>",
        "unclosed <b>",
        "  ",
    ] {
        let mut bad = patient(inside);
        let refused = c.post("Patient", &bad).await;
        assert_eq!(refused.status, 422, "{inside}");
        assert_eq!(refused.at("/issue/0/code"), "invariant", "{inside}");
        assert_eq!(refused.at("/issue/0/expression/0"), "Patient.text.div", "{inside}");
        bad["id"] = json!(id);
        assert_eq!(c.put(&format!("Patient/{id}"), &bad).await.status, 422, "{inside}");
        let entry = json!([{"resource": bad, "request": {"method": "POST", "url": "Patient"}}]);
        let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entry});
        let refused = c.post("", &bundle).await;
        assert_eq!(refused.status, 422, "{inside}");
        assert_eq!(
            refused.at("/issue/0/expression/0"),
            "Bundle.entry[0].resource.Patient.text.div"
        );
    }
    let kept = c.get(&format!("Patient/{id}")).await;
    assert_eq!(
        (kept.etag(), kept.at("/text/div")),
        ("W/\"1\"", fine["text"]["div"].clone())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_narrative_is_refused_at_every_door() {
    on_both_engines(SCHEMA, |w| Box::pin(doors(w))).await;
}

/// What may stand in the address of a search may stand in the body of a POST instead, where no log and no history keeps it.
async fn by_post(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Clinician).await?;
    for family in ["Quiet", "Other"] {
        let made = c
            .post(
                "Patient",
                &json!({"resourceType": "Patient", "name": [{"family": family}]}),
            )
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let found = c.send("POST", "Patient/_search", &form, "family=Quiet").await;
    assert_eq!(found.status, 200, "{}", found.text);
    assert_eq!(found.at("/entry/0/resource/name/0/family"), "Quiet");
    assert_eq!(found.at("/entry/1"), Value::Null);
    let wrong = [("content-type", "application/json")];
    assert_eq!(c.send("POST", "Patient/_search", &wrong, "{}").await.status, 400);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_can_be_posted() {
    on_both_engines(SCHEMA, |w| Box::pin(by_post(w))).await;
}
