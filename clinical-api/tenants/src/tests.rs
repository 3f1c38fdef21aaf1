use super::*;
use ::http::{Request, StatusCode};
use axum::{Extension, body::Body as Bytes};
use http_body_util::BodyExt;
use medtech_kernel::{
    BoxFuture, Tenant,
    auth::{FRESH, Role},
    clock::Millis,
    testkit::{World, on_both_engines},
};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};
use uuid::Uuid;

mod life;

pub(crate) const TABLES: &[&[Migration]] = &[medtech_fhir::MIGRATIONS, &[MIGRATION]];
const MIGRATION: Migration = Migration {
    module: "tenants",
    number: 1,
    sql: Script::Both(include_str!("../migrations/0001_exports.sql")),
};
const FILE: &[u8] = b"the bytes of a picture";
/// The number of a file whose key was destroyed.
const ERASED: u128 = 8;

/// The other parts of the product, as far as a clinic as a whole concerns them.
#[derive(Default)]
struct Neighbours {
    erased: Mutex<Vec<TenantId>>,
    /// A file's bytes are not those of its description.
    damaged: AtomicBool,
}

impl House for Neighbours {
    fn first_admin<'a>(
        &'a self,
        tenant: TenantId,
        _: &'a str,
        email: String,
        _: String,
    ) -> BoxFuture<'a, Result<FirstAdmin>> {
        Box::pin(async move {
            Ok(FirstAdmin {
                link: format!("http://x/enter#{tenant}"),
                email,
                expires_at: String::new(),
            })
        })
    }

    fn usage(&self, _: TenantId, today: Millis) -> BoxFuture<'_, Result<Usage>> {
        Box::pin(async move {
            Ok(Usage {
                users: 3,
                storage_bytes: 22,
                messages_today: u64::try_from(today).unwrap_or(0),
            })
        })
    }

    fn page(&self, tenant: TenantId, part: Part, after: Option<String>) -> BoxFuture<'_, Result<Page>> {
        Box::pin(async move {
            let rows = match (part, after) {
                (Part::Users, None) => vec![json!({"id": "u1", "clinic": tenant}), json!({"id": "u2"})],
                (Part::Users, Some(_)) => vec![json!({"id": "u3"})],
                (Part::Files, _) => [7, ERASED]
                    .map(|id| json!({"id": Uuid::from_u128(id), "size": FILE.len(), "sha256": life::hex(FILE)}))
                    .to_vec(),
                _ => Vec::new(),
            };
            let next = (part == Part::Users && rows.len() == 2).then(|| "u2".to_owned());
            Ok(Page { rows, next })
        })
    }

    fn file(&self, _: TenantId, id: Uuid, range: Range<u64>) -> BoxFuture<'_, Result<Vec<u8>>> {
        if id == Uuid::from_u128(ERASED) {
            return Box::pin(async {
                Err(Error::gone(
                    "vault.erased",
                    "This was erased, and cannot be read again.",
                ))
            });
        }
        let mut part = FILE[range.start as usize..range.end as usize].to_vec();
        part[0] ^= u8::from(self.damaged.load(Ordering::SeqCst));
        Box::pin(async move { Ok(part) })
    }

    fn erase_files(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64>> {
        self.erased.lock().unwrap().push(tenant);
        Box::pin(async { Ok(1) })
    }
}

fn module(w: &World) -> Arc<TenantsModule> {
    module_beside(w, Neighbours::default())
}

fn module_beside(w: &World, neighbours: Neighbours) -> Arc<TenantsModule> {
    let fhir = Fhir::new(w.ctx.clone());
    Arc::new(TenantsModule::new(w.ctx.clone(), fhir, Arc::new(neighbours)))
}
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

#[tokio::test(flavor = "multi_thread")]
async fn the_address_names_the_clinic_and_only_the_first_clinics_administrator_adds_one() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let app = module(w).routes().layer(Extension(w.ctx.clone()));
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

async fn entry(w: &World, tenant: TenantId, actor: &'static str, target: &'static str) -> Result<()> {
    w.ctx
        .db
        .write(tenant, move |tx| {
            Box::pin(async move {
                let entry = Entry {
                    actor,
                    action: "read",
                    target,
                    outcome: "success",
                    detail: "read",
                };
                write(tx, entry).await
            })
        })
        .await
}

const FORGE: &str = "UPDATE audit SET target = 'Patient/x' WHERE tenant = $1 AND seq = 2";

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_for_administrators_of_the_clinic_and_looking_leaves_a_trace() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let app = module(w).routes().layer(Extension(w.ctx.clone()));
            for n in 0..5 {
                w.ctx.clock.advance(1000);
                let actor = if n % 2 == 0 { "user:a" } else { "user:b" };
                entry(
                    w,
                    w.north.id,
                    actor,
                    if n == 3 { "Patient/p1" } else { "Observation/o1" },
                )
                .await?;
            }
            entry(w, w.south.id, "user:s", "Patient/secret-of-south").await?;
            let mut tokens = Vec::new();
            for (n, role) in [
                Role::Admin,
                Role::Clinician,
                Role::Staff,
                Role::Patient,
                Role::Guest,
                Role::Device,
            ]
            .into_iter()
            .enumerate()
            {
                let subject = format!("user:0190a000-0000-7000-8000-00000000000{n}");
                tokens.push((role, w.sign_in(&w.north, &subject, role).await?.1));
            }
            let admin = tokens.remove(0).1;
            let get = |path: &'static str| call(&app, "GET", "north.localhost", path, Some(&admin), Value::Null);

            // Newest first, page after page, each entry once; what looking itself adds lies before the first page.
            let mut seen = Vec::new();
            let mut path = "/audit?limit=2&to=2026-03-02T09:00:30Z".to_owned();
            loop {
                let (status, body) = call(&app, "GET", "north.localhost", &path, Some(&admin), Value::Null).await;
                assert_eq!(status, StatusCode::OK, "{body}");
                seen.extend(
                    body["entries"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|e| e["seq"].as_i64().unwrap()),
                );
                assert!(!body.to_string().contains("secret-of-south"));
                w.ctx.clock.advance(60_000);
                match body["next"].as_i64() {
                    Some(next) => path = format!("/audit?limit=2&to=2026-03-02T09:00:30Z&after={next}"),
                    None => break,
                }
            }
            assert_eq!(seen, [5, 4, 3, 2, 1]);
            let seqs = |body: &Value| -> Vec<i64> {
                body["entries"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|e| e["seq"].as_i64().unwrap())
                    .collect()
            };
            assert_eq!(seqs(&get("/audit?actor=user:b").await.1), [4, 2]);
            assert_eq!(seqs(&get("/audit?target=Patient/p1").await.1), [4]);
            assert_eq!(
                seqs(
                    &get("/audit?target=Observation/o1&from=2026-03-02T10:00:03%2B01:00&to=2026-03-02T09:00:05Z")
                        .await
                        .1
                ),
                [3]
            );
            let (_, own) = get("/audit?target=audit&limit=1").await;
            assert_eq!(
                (&own["entries"][0]["detail"], &own["entries"][0]["actor"]),
                (
                    &json!("search target from to"),
                    &json!("user:0190a000-0000-7000-8000-000000000000")
                )
            );
            for (bad, code) in [
                ("/audit?limit=0", "audit.limit"),
                ("/audit?limit=201", "audit.limit"),
                ("/audit?from=yesterday", "audit.time"),
                ("/audit?after=x", "audit.query"),
                ("/audit?colour=red", "audit.query"),
            ] {
                let (status, body) = get(bad).await;
                assert_eq!(
                    (status, &body["code"]),
                    (StatusCode::BAD_REQUEST, &json!(code)),
                    "{bad}"
                );
            }

            // Nobody else: neither another role, nor another clinic's administrator, nor nobody.
            let (_, stranger) = w
                .sign_in(&w.south, "user:0190a000-0000-7000-8000-0000000000ff", Role::Admin)
                .await?;
            for (method, path) in [("GET", "/audit"), ("POST", "/audit/verify")] {
                for (role, token) in &tokens {
                    let (status, body) = call(&app, method, "north.localhost", path, Some(token), Value::Null).await;
                    assert_eq!(status, StatusCode::FORBIDDEN, "{role:?} {path}: {body}");
                }
                for token in [None, Some(stranger.as_str())] {
                    let (status, _) = call(&app, method, "north.localhost", path, token, Value::Null).await;
                    assert_eq!(status, StatusCode::UNAUTHORIZED);
                }
            }
            let (_, refused) = get("/audit?outcome=denied").await;
            assert_eq!(refused["entries"].as_array().unwrap().len(), 2 * tokens.len());

            // The proof, and what it says when somebody changed an entry.
            let verify = || {
                call(
                    &app,
                    "POST",
                    "north.localhost",
                    "/audit/verify",
                    Some(&admin),
                    Value::Null,
                )
            };
            let (status, good) = verify().await;
            assert_eq!((status, &good["intact"]), (StatusCode::OK, &json!(true)), "{good}");
            w.forge(w.north.id, FORGE, Vec::new()).await?;
            let (_, bad) = verify().await;
            assert_eq!(
                (&bad["intact"], &bad["findings"][0]["kind"], &bad["findings"][0]["seq"]),
                (&json!(false), &json!("altered"), &json!(2)),
                "{bad}"
            );
            let (_, south) = call(
                &app,
                "POST",
                "south.localhost",
                "/audit/verify",
                Some(&stranger),
                Value::Null,
            )
            .await;
            assert_eq!(south["intact"], true);
            Ok(())
        })
    })
    .await;
}
