use super::*;
use ::http::Request;
use axum::{Extension, body::Body as Bytes};
use http_body_util::BodyExt;
use medtech_kernel::testkit::on_both_engines;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn call(
    app: &Router,
    method: &str,
    host: &str,
    path: &str,
    token: Option<&str>,
    body: Value,
) -> (StatusCode, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = app
        .clone()
        .oneshot(request.body(Bytes::from(body.to_string())).unwrap())
        .await
        .unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_address_names_the_clinic_and_only_the_first_clinics_administrator_adds_one() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let app = Arc::new(TenantsModule::new(w.ctx.clone()))
                .routes()
                .layer(Extension(w.ctx.clone()));
            for (host, name, zone) in [
                ("north.localhost:8080", "North Clinic", "Europe/Berlin"),
                ("south.localhost", "South Clinic", "America/New_York"),
                ("South.LOCALHOST.:99", "South Clinic", "America/New_York"),
                ("[::1]:8080", "North Clinic", "Europe/Berlin"),
                ("east.localhost", "East Clinic", "Asia/Kathmandu"),
            ] {
                let (status, body) = call(&app, "GET", host, "/current", None, Value::Null).await;
                assert_eq!(
                    (status, &body["name"], &body["zone"]),
                    (StatusCode::OK, &json!(name), &json!(zone))
                );
            }
            let (_, admin) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000001", Role::Admin)
                .await?;
            let (_, clinician) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000002", Role::Clinician)
                .await?;
            let (_, other) = w
                .sign_in(&w.south, "user:0190a000-0000-7000-8000-000000000003", Role::Admin)
                .await?;
            let new =
                json!({"slug": "west", "name": "West Clinic", "zone": "Pacific/Auckland", "domains": ["West.Example"]});
            assert_eq!(
                call(&app, "POST", "north.localhost", "/", None, new.clone()).await.0,
                StatusCode::UNAUTHORIZED
            );
            assert_eq!(
                call(&app, "POST", "north.localhost", "/", Some(&clinician), new.clone())
                    .await
                    .0,
                StatusCode::FORBIDDEN
            );
            assert_eq!(
                call(&app, "POST", "south.localhost", "/", Some(&other), new.clone())
                    .await
                    .0,
                StatusCode::FORBIDDEN
            );
            let (status, body) = call(&app, "POST", "north.localhost", "/", Some(&admin), new.clone()).await;
            assert_eq!((status, &body["slug"]), (StatusCode::CREATED, &json!("west")), "{body}");
            let (_, found) = call(&app, "GET", "west.example", "/current", None, Value::Null).await;
            assert_eq!(found["slug"], "west");
            assert_eq!(
                call(&app, "POST", "north.localhost", "/", Some(&admin), new).await.1["code"],
                "tenants.slug_taken"
            );
            for (field, value, code) in [
                ("slug", json!("No Spaces"), "tenant.slug"),
                ("zone", json!("Mars/Olympus"), "tenant.zone"),
                ("name", json!(" "), "tenants.name"),
                ("domains", json!(["http://x/"]), "tenants.domains"),
            ] {
                let mut bad = json!({"slug": "new", "name": "New", "zone": "Europe/Paris"});
                bad[field] = value;
                assert_eq!(
                    call(&app, "POST", "north.localhost", "/", Some(&admin), bad).await.1["code"],
                    code
                );
            }
            Ok(())
        })
    })
    .await;
}
