//! Scopes that a query narrows: asked, shown, given, held to; and single permissions taken back later.

use super::kit::{Kit, Pairs, TABLES, public, query};
use http::StatusCode;
use medtech_kernel::{Result, testkit::on_both_engines};
use serde_json::{Value, json};

const LAB: &str = "patient/Observation.rs?category=urn:cat|laboratory";

fn asks<'a>(kit: &Kit<'_>, client: &str, scope: &str) -> Pairs<'a> {
    let mut pairs = kit.asks(client);
    pairs.retain(|(name, _)| *name != "scope");
    pairs.push(("scope", scope.to_owned()));
    pairs
}

/// Two observations of one patient.
async fn record(kit: &Kit<'_>) -> Result<()> {
    let fhir = kit.identity.records.clone().expect("records");
    let patient = json!({"resourceType": "Patient", "id": "p1"});
    fhir.update(kit.w.north.id, "system", "p1", patient, None)
        .await
        .expect("a patient");
    for (id, category) in [("lab", "laboratory"), ("vital", "vital-signs")] {
        let made = json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p1"},
            "category": [{"coding": [{"system": "urn:cat", "code": category}]}]});
        fhir.update(kit.w.north.id, "system", id, made, None)
            .await
            .expect("an observation");
    }
    Ok(())
}

async fn ids(kit: &Kit<'_>, token: &str) -> Vec<String> {
    let answer = kit.api("GET", "/fhir/R4/Observation", token, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let all = answer.json["entry"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|e| e["resource"]["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_query_is_shown_given_and_held_to() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            record(&kit).await?;
            let client = kit.public().await;
            let request = kit
                .request(&asks(
                    &kit,
                    &client,
                    &format!("openid launch/patient offline_access {LAB}"),
                ))
                .await;
            let shown = kit
                .api(
                    "GET",
                    &format!("/api/identity/authorizations/{request}"),
                    &kit.doctor,
                    None,
                )
                .await;
            let word = shown.json["scopes"]
                .as_array()
                .unwrap()
                .iter()
                .find(|s| s["scope"] == LAB)
                .cloned()
                .unwrap();
            assert_eq!(word["type"], "Observation");
            assert_eq!(
                word["only"],
                json!([{"name": "category", "value": "urn:cat|laboratory"}])
            );
            let to = kit.allow(&request).await;
            let answer = kit
                .form("/oauth2/token", &kit.redeems(&client, &query(&to)["code"]))
                .await;
            assert!(answer.get("scope").contains(LAB), "{}", answer.text);
            assert_eq!(ids(&kit, &answer.get("access_token")).await, ["lab"]);
            // Refreshed with less, and never with more.
            let refresh = async |token: &str, scope: &str| {
                let mut pairs = kit.refreshes(&client, token);
                pairs.push(("scope", scope.to_owned()));
                kit.form("/oauth2/token", &pairs).await
            };
            let token = answer.get("refresh_token");
            for wider in [
                "patient/Observation.rs",
                "patient/Observation.rs?category=vital-signs",
                "patient/*.rs",
            ] {
                assert_eq!(refresh(&token, wider).await.get("error"), "invalid_scope", "{wider}");
            }
            let nonsense = refresh(&token, &format!("{LAB}&nonsense=1")).await;
            assert_eq!(nonsense.get("error"), "invalid_scope", "{}", nonsense.text);
            let less = refresh(&token, &format!("{LAB}&_id=vital")).await;
            assert_eq!(ids(&kit, &less.get("access_token")).await, Vec::<String>::new());
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused_by_its_name() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            for (scope, name) in [
                ("patient/Observation.rs?nonsense=1", "nonsense"),
                (
                    "patient/Observation.rs?category=x&_include=Observation:subject",
                    "_include",
                ),
                ("patient/Observation.rs?category:unheard=x", "category:unheard"),
                ("patient/*.rs?category=x", "type"),
                ("patient/Nothing.rs?category=x", "Nothing"),
            ] {
                let back = query(kit.authorize(&asks(&kit, &client, scope)).await.location());
                assert_eq!(back["error"], "invalid_scope", "{scope}");
                assert!(
                    back["error_description"].contains(name),
                    "{scope}: {}",
                    back["error_description"]
                );
                // Neither pushed nor registered.
                let pushed = kit.form("/oauth2/par", &asks(&kit, &client, scope)).await;
                assert_eq!(pushed.get("error"), "invalid_scope", "{scope}");
                let mut metadata = public();
                metadata["scope"] = scope.into();
                let registered = kit
                    .api("POST", "/api/identity/clients", &kit.admin, Some(metadata))
                    .await;
                assert_eq!(
                    registered.status,
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "{}",
                    registered.text
                );
                assert!(registered.get("detail").contains(name), "{}", registered.text);
            }
            // A client that is registered for a part asks for that part or less.
            let mut metadata = public();
            metadata["scope"] = "openid patient/Observation.rs?category=laboratory".into();
            let narrow = kit.register(metadata).await.0;
            for (scope, good) in [
                ("patient/Observation.rs?category=laboratory", true),
                ("patient/Observation.r?category=laboratory&status=final", true),
                ("patient/Observation.rs", false),
                ("patient/Observation.rs?category=laboratory,vital-signs", false),
                ("patient/Observation.rs?status=final", false),
            ] {
                let to = kit.authorize(&asks(&kit, &narrow, scope)).await;
                assert_eq!(
                    to.location().starts_with("/app/authorize?"),
                    good,
                    "{scope}: {}",
                    to.location()
                );
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn single_permissions_are_taken_back_and_what_is_out_ends() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            record(&kit).await?;
            let client = kit.public().await;
            let first = kit.signed_in(&client).await;
            let apps = async || kit.api("GET", "/api/identity/me/apps", &kit.doctor, None).await.json["apps"].clone();
            let held = |apps: &Value| -> Vec<String> {
                apps[0]["scopes"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|s| s.as_str().unwrap().to_owned())
                    .collect()
            };
            assert!(held(&apps().await).contains(&"patient/*.rs".to_owned()));
            let path = format!("/api/identity/me/apps/{client}");
            let unknown = kit
                .api("PATCH", &path, &kit.doctor, Some(json!({"without": ["user/*.cruds"]})))
                .await;
            assert_eq!(unknown.status, StatusCode::NOT_FOUND);
            let others = kit
                .api("PATCH", &path, &kit.admin, Some(json!({"without": ["patient/*.rs"]})))
                .await;
            assert_eq!(others.status, StatusCode::NOT_FOUND, "somebody else's permissions");
            let by_itself = kit
                .api(
                    "PATCH",
                    &path,
                    &first.get("access_token"),
                    Some(json!({"without": ["profile"]})),
                )
                .await;
            assert_eq!(by_itself.status, StatusCode::FORBIDDEN);
            let done = kit
                .api("PATCH", &path, &kit.doctor, Some(json!({"without": ["patient/*.rs"]})))
                .await;
            assert_eq!(done.status, StatusCode::NO_CONTENT, "{}", done.text);
            assert!(!kit.is_good(&first.get("access_token")).await, "what said more is over");
            assert!(!held(&apps().await).contains(&"patient/*.rs".to_owned()));
            let again = kit
                .form("/oauth2/token", &kit.refreshes(&client, &first.get("refresh_token")))
                .await;
            assert_eq!(again.status, StatusCode::OK, "{}", again.text);
            assert!(!again.get("scope").contains("patient/*.rs") && again.get("scope").contains("openid"));
            let closed = kit
                .api("GET", "/fhir/R4/Observation", &again.get("access_token"), None)
                .await;
            assert_eq!(closed.status, StatusCode::FORBIDDEN);
            // With the last of them the application ends.
            let rest = json!({"without": ["fhirUser", "profile", "offline_access"]});
            assert_eq!(
                kit.api("PATCH", &path, &kit.doctor, Some(rest)).await.status,
                StatusCode::NO_CONTENT
            );
            assert_eq!(apps().await, json!([]));
            let over = kit
                .form("/oauth2/token", &kit.refreshes(&client, &again.get("refresh_token")))
                .await;
            assert_eq!(over.get("error"), "invalid_grant");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_is_taken_back_meanwhile_stays_taken_back() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let path = format!("/api/identity/me/apps/{client}");
            let without = |scope: &'static str| kit.api("PATCH", &path, &kit.doctor, Some(json!({"without": [scope]})));
            // Two at once, from two windows: neither gives back what the other took.
            kit.signed_in(&client).await;
            let (one, two) = tokio::join!(without("profile"), without("fhirUser"));
            assert_eq!(
                (one.status, two.status),
                (StatusCode::NO_CONTENT, StatusCode::NO_CONTENT)
            );
            let apps = kit.api("GET", "/api/identity/me/apps", &kit.doctor, None).await;
            for gone in ["\"profile\"", "\"fhirUser\""] {
                assert!(!apps.text.contains(gone), "{}", apps.text);
            }
            // A token is asked for with what is just being taken back: whoever is first, it does not open afterwards.
            let client = kit.public().await;
            let path = format!("/api/identity/me/apps/{client}");
            let first = kit.signed_in(&client).await;
            let mut pairs = kit.refreshes(&client, &first.get("refresh_token"));
            pairs.push(("scope", "openid patient/*.rs".into()));
            let body = json!({"without": ["patient/*.rs"]});
            let (taken, asked) = tokio::join!(
                kit.api("PATCH", &path, &kit.doctor, Some(body)),
                kit.form("/oauth2/token", &pairs)
            );
            assert_eq!(taken.status, StatusCode::NO_CONTENT, "{}", taken.text);
            match asked.status {
                StatusCode::OK => assert!(
                    !kit.is_good(&asked.get("access_token")).await,
                    "it was before, and ended"
                ),
                _ => assert_eq!(asked.get("error"), "invalid_scope", "{}", asked.text),
            }
            Ok(())
        })
    })
    .await;
}
