//! Two clinics of one installation, each by its own name: what the authorization server says and what the record says agree.

use super::kit::{Kit, REDIRECT, TABLES, VERIFIER, challenge, encoded, public};
use axum::{Extension, Router, body::Body};
use http::Request;
use medtech_fhir::Fhir;
use medtech_kernel::{Module, auth::Role, config::Config, testkit::on_both_engines};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn links_and_tokens_go_by_the_name_of_the_clinic() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let mut kit = Kit::new(w).await?;
            let mut ctx = w.ctx.clone();
            ctx.config = Arc::new(Config {
                public_url: Some("https://clinic.example/".into()),
                ..Config::clone(&ctx.config)
            });
            let fhir = Fhir::new(ctx.clone());
            let identity = Arc::new(crate::Identity::new(ctx.clone()).with_records(fhir.clone()));
            kit.app = Router::new()
                .nest("/api/identity", identity.clone().routes())
                .merge(identity.oauth_routes())
                .merge(identity.for_applications(fhir.router()))
                .layer(Extension(ctx.clone()));
            let default = w.ctx.tenants.by_host("").expect("a default clinic");
            let mut seen = Vec::new();
            for tenant in [&w.north, &w.south] {
                let host = format!("{}.localhost", tenant.slug);
                let origin = match tenant.id == default.id {
                    true => "https://clinic.example".to_owned(),
                    false => format!("https://{host}"),
                };
                let (_, token) = kit.person(tenant, &format!("head@{}.example", tenant.slug), Role::Clinician).await?;
                let get = async |path: &str| {
                    let request = Request::builder().uri(path).header("host", &host).header("authorization", format!("Bearer {token}"));
                    kit.send(request.body(Body::empty()).unwrap()).await
                };
                let openid = get("/.well-known/openid-configuration").await;
                assert_eq!(openid.get("issuer"), origin);
                let metadata = get("/fhir/R4/metadata").await.json;
                assert_eq!(metadata["implementation"]["url"], format!("{origin}/fhir/R4"));
                let security = &metadata["rest"][0]["security"];
                assert_eq!(security["service"][0]["coding"][0]["code"], "SMART-on-FHIR");
                let uris = security["extension"][0]["extension"].as_array().unwrap();
                for (name, known) in [("authorize", "authorization_endpoint"), ("token", "token_endpoint"), ("introspect", "introspection_endpoint"), ("revoke", "revocation_endpoint")] {
                    let said = uris.iter().find(|u| u["url"] == name).map(|u| u["valueUri"].clone());
                    assert_eq!(said, Some(openid.json[known].clone()), "{name}");
                }
                fhir.update(tenant.id, "system", "p1", json!({"resourceType": "Patient", "id": "p1"}), None).await.expect("a patient");
                let bundle = get("/fhir/R4/Patient").await.json;
                assert_eq!(bundle["link"][0]["url"], format!("{origin}/fhir/R4/Patient"));
                assert_eq!(bundle["entry"][0]["fullUrl"], format!("{origin}/fhir/R4/Patient/p1"));
                // An address of ours in a search means what it says.
                let o = json!({"resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p1"}});
                fhir.update(tenant.id, "system", "o1", o, None).await.expect("an observation");
                let found = get(&format!("/fhir/R4/Observation?subject={origin}/fhir/R4/Patient/p1")).await.json;
                assert_eq!(found["entry"][0]["resource"]["id"], "o1", "{found}");
                // `aud` of a request is this record's address, and no other clinic's.
                let asks = |aud: &str, client: &str| {
                    vec![("response_type", "code".into()), ("client_id", client.into()), ("redirect_uri", REDIRECT.into()), ("scope", "openid patient/*.rs".into()),
                        ("state", "s".into()), ("aud", aud.into()), ("code_challenge", challenge(VERIFIER)), ("code_challenge_method", "S256".into())]
                };
                if tenant.id == w.north.id {
                    let client = kit.register(public()).await.0;
                    for (aud, good) in [(format!("{origin}/fhir/R4"), true), (format!("http://{host}/fhir/R4"), false), ("https://south.localhost/fhir/R4".to_owned(), false)] {
                        let to = get(&format!("/oauth2/authorize?{}", encoded(&asks(&aud, &client)))).await;
                        assert_eq!(to.location().starts_with("/app/authorize?"), good, "{aud}: {}", to.location());
                    }
                }
                seen.push(origin);
            }
            assert_ne!(seen[0], seen[1]);
            Ok(())
        })
    })
    .await;
}
