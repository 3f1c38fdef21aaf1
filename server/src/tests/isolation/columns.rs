//! What whoever holds PostgreSQL's files or its owner's password can read: every kind of data of a visit goes in by the
//! real routes, then every column of every table is searched for it.

use super::{Caller, House, Stand, house};
use crate::{app, sealing};
use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, header::LOCATION};
use medtech_kernel::{
    Result,
    db::Engine,
    testkit::{World, on_both_engines, scan::legible},
};
use serde_json::json;
use tower::ServiceExt;
use uuid::Uuid;

/// In names of people, of a device, a file, a conversation; in a reason, a message, a note; in addresses.
const WORDS: [&str; 9] = [
    "Marknorth",
    "north.example",
    "Quillfeather",
    "1705550199",
    "xray-left-hand",
    "itches-at-night",
    "Erlenweg",
    "covering-for-a-colleague",
    "they/quill",
];

impl House {
    async fn upload(&self, who: &Caller, conversation: &str, name: &str) -> String {
        let text = "a finding in a file";
        let metadata = format!(
            "filename {},conversation {}",
            STANDARD.encode(name),
            STANDARD.encode(conversation)
        );
        let request = |method: &str, path: &str| {
            Request::builder()
                .method(method)
                .uri(path)
                .header("host", &who.host)
                .header(
                    "authorization",
                    format!("Bearer {}", who.token.as_deref().unwrap_or_default()),
                )
                .header("tus-resumable", "1.0.0")
        };
        let make = request("POST", "/files")
            .header("upload-length", text.len().to_string())
            .header("upload-metadata", metadata)
            .body(Body::empty());
        let made = self
            .router
            .clone()
            .oneshot(make.expect("a request"))
            .await
            .expect("infallible");
        assert_eq!(made.status(), 201);
        let path = made.headers()[LOCATION].to_str().expect("text").to_owned();
        let path = path
            .find("/files/")
            .and_then(|at| path.get(at..))
            .expect("a path")
            .to_owned();
        let send = request("PATCH", &path)
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", "0")
            .body(Body::from(text));
        let sent = self
            .router
            .clone()
            .oneshot(send.expect("a request"))
            .await
            .expect("infallible");
        assert_eq!(sent.status(), 204);
        path.rsplit('/').next().expect("an id").to_owned()
    }

    /// Everything that a clinic's people write in a day, with the words above in it.
    async fn live_a_day(&self, stand: &Stand) {
        let (admin, clinician, guest) = (stand.caller("admin"), stand.caller("clinician"), stand.caller("guest"));
        let (patient, conversation) = (stand.id("patient"), stand.id("conversation"));
        let fhir = async |resource: serde_json::Value| {
            let path = format!("/fhir/R4/{}", resource["resourceType"].as_str().expect("a type"));
            self.json(clinician, "POST", &path, resource).await
        };
        let person = json!({
            "resourceType": "Patient", "name": [{"family": "Quillfeather", "given": ["Ida"], "text": "Ida Quillfeather"}],
            "telecom": [{"system": "phone", "value": "+1 1705550199"}, {"system": "email", "value": "ida@north.example"}],
            "address": [{"line": ["Erlenweg 5"], "city": "Erlenwegstadt"}],
            "identifier": [{"system": "urn:mrn", "value": "Quillfeather-1"}],
        });
        fhir(person).await;
        let about = json!({"reference": format!("Patient/{patient}")});
        fhir(json!({
            "resourceType": "Observation", "status": "final", "code": {"text": "Quillfeather sign"}, "subject": about,
            "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
            "interpretation": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "HH"}]}],
            "note": [{"text": "itches-at-night"}], "effectiveDateTime": "2026-03-02T08:00:00Z",
        }))
        .await;
        for kind in ["Practitioner", "Organization", "Location", "RelatedPerson", "Device"] {
            let mut resource = match kind {
                "Practitioner" | "RelatedPerson" => json!({
                    "name": [{"family": "Quillfeather"}], "address": [{"line": ["Erlenweg 7"]}],
                    "telecom": [{"system": "email", "value": "doc@north.example"}],
                }),
                "Device" => json!({"deviceName": [{"name": "Quillfeather's watch", "type": "user-friendly-name"}]}),
                _ => json!({"name": "Quillfeather house", "address": {"line": ["Erlenweg 9"]}}),
            };
            if kind == "Organization" {
                resource["address"] = json!([{"line": ["Erlenweg 9"]}]);
            }
            if kind == "RelatedPerson" {
                resource["patient"] = about.clone();
            }
            resource["resourceType"] = json!(kind);
            let made = self.clinic.fhir.create(
                self.clinic.ctx.tenants.by_slug("north").expect("a clinic").id,
                "system",
                resource,
            );
            made.await.map_err(medtech_kernel::Error::from).expect("created");
        }
        let profile = json!({"name": "Marknorth clinician", "phone": "+1 1705550199", "pronouns": "they/quill"});
        self.json(clinician, "PUT", "/api/identity/me/profile", profile).await;
        let invited = json!({"email": "quill@north.example", "name": "Quentin Quillfeather", "roles": ["staff"]});
        self.json(admin, "POST", "/api/identity/users", invited).await;
        let glass = json!({"reason_code": "covering", "text": "covering-for-a-colleague"});
        let locum = stand.caller("locum");
        for whose in ["stranger", "patient"] {
            let path = format!("/api/records/patients/{}/break-glass", stand.id(whose));
            self.json(locum, "POST", &path, glass.clone()).await;
        }
        let path = format!("/api/visits/{}/colleagues", stand.id("visit"));
        self.json(locum, "POST", &path, json!({})).await;
        let file = self.upload(guest, conversation, "xray-left-hand.jpg").await;
        let message =
            json!({"client_id": Uuid::from_u128(77), "body": {"text": "itches-at-night", "file": {"id": file}}});
        let path = format!("/api/messaging/conversations/{conversation}/messages");
        let text = message.to_string();
        let (status, _) = self.ask(guest, "POST", &path, Some(&text)).await;
        if status >= 300 {
            let message = json!({"client_id": Uuid::from_u128(78), "body": {"text": "itches-at-night"}});
            self.json(guest, "POST", &path, message).await;
        }
    }
}

async fn lived(w: &World) -> Result<(House, Stand)> {
    let house = house(w).await?;
    let mut stand = house.stand(w, &w.north).await?;
    let outside = house.furnish(w, &w.north, &mut stand).await?;
    let stranger = outside.ids.iter().find(|(kind, _)| *kind == "patient");
    stand.ids.push(("stranger", stranger.expect("a patient").1.clone()));
    house.live_a_day(&stand).await;
    house.settle(&w.north).await?;
    house.picture(&stand).await;
    Ok((house, stand))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_address_or_finding_stands_in_a_column_of_postgresql() {
    let tables = app::migrations();
    on_both_engines(tables.get(1..).unwrap_or_default(), |w| {
        Box::pin(async move {
            let (house, stand) = lived(w).await?;
            // It went in, or its absence would prove nothing; and it is found by beginnings, as the standard says.
            let (admin, clinician) = (stand.caller("admin"), stand.caller("clinician"));
            for (who, path, word) in [
                (admin, "/api/identity/users?search=QUILLF", "quill@north.example"),
                (clinician, "/api/identity/me/profile", "they/quill"),
                (
                    clinician,
                    &format!("/api/visits/{}", stand.id("visit")),
                    "Locum Marknorth",
                ),
                (clinician, "/fhir/R4/Practitioner?family=quillf", "doc@north.example"),
                (clinician, "/fhir/R4/Organization?name=quill", "Erlenweg 9"),
                (
                    clinician,
                    "/fhir/R4/Organization?name:exact=Quillfeather%20house",
                    "Erlenweg 9",
                ),
                (
                    clinician,
                    "/fhir/R4/Patient?address=erlenw&phone=%2B1%201705550199",
                    "Ida",
                ),
                (clinician, "/fhir/R4/Device?device-name=quillf", "watch"),
                (admin, "/api/records/break-glass", "covering-for-a-colleague"),
            ] {
                let (status, text) = house.ask(who, "GET", path, None).await;
                assert!(status == 200 && text.contains(word), "{path}: {status} {text}");
            }
            let found = legible(&w.columns().await?, &WORDS);
            assert_eq!(found, Vec::<String>::new());
            if w.ctx.db.engine() == Engine::Postgres {
                // One column left in clear is found.
                let leak = "UPDATE visit SET guest_name = 'Ida Quillfeather' WHERE tenant = $1";
                w.forge(w.north.id, leak, Vec::new()).await?;
                assert_eq!(legible(&w.columns().await?, &WORDS), ["visit.guest_name: Quillfeather"]);
                // And sealed by the sweep that looks after what older releases wrote.
                for sheets in sealing::SHEETS {
                    medtech_kernel::vault::sweep(&w.ctx.db, w.north.id, sheets).await?;
                }
                assert_eq!(legible(&w.columns().await?, &WORDS), Vec::<String>::new());
                let visit = format!("/api/visits/{}", stand.id("visit"));
                let (_, text) = house.ask(clinician, "GET", &visit, None).await;
                assert!(text.contains("Ida Quillfeather"), "{text}");
            }
            house.stop.send_replace(true);
            house.running.stop().await;
            Ok(())
        })
    })
    .await;
}
