//! The life of a clinic on both engines: made, limited, closed, opened, its settings and its data, deleted.

use super::*;
use aws_lc_rs::digest;
use std::{collections::HashMap, io::Read};

const HOME: &str = "north.localhost";

struct Admin {
    app: Router,
    this: Arc<TenantsModule>,
    token: String,
}

async fn admin(w: &World) -> Result<Admin> {
    admin_of(w, module(w)).await
}

async fn admin_of(w: &World, this: Arc<TenantsModule>) -> Result<Admin> {
    let app = this.clone().routes().layer(Extension(w.ctx.clone()));
    let (_, token) = w
        .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000001", Role::Admin)
        .await?;
    Ok(Admin { app, this, token })
}

impl Admin {
    async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        call(&self.app, method, HOME, path, Some(&self.token), body).await
    }

    fn id(&self, t: &Tenant) -> String {
        format!("/{}", t.id)
    }
}

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["code"].as_str().unwrap_or(""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clinic_is_made_named_limited_and_found_at_its_host_names() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let a = admin(w).await?;
            let new = json!({"slug": "west", "name": "West", "zone": "UTC", "domains": ["care.west.example"], "admin": {"email": "w@west.example", "name": "W"}});
            let (status, made) = a.ask("POST", "/", new.clone()).await;
            assert_eq!((status, &made["admin"]["email"], &made["address"]), (StatusCode::CREATED, &json!("w@west.example"), &json!("https://care.west.example")), "{made}");
            assert_eq!(code(&a.ask("POST", "/", new).await), (409, "tenants.slug_taken"));
            let path = format!("/{}", made["id"]);
            for (host, expected) in [
                ("care.west.example", (409, "tenant.domain_taken")),
                ("west.localhost", (422, "tenants.domains")),
                ("a b", (422, "tenants.domains")),
                ("10.0.0.1", (422, "tenants.domains")),
            ] {
                assert_eq!(code(&a.ask("POST", &format!("{path}/domains"), json!({"host": host})).await), expected, "{host}");
            }
            let other = format!("{}/domains", a.id(&w.south));
            assert_eq!(code(&a.ask("POST", &other, json!({"host": "Care.West.Example."})).await), (409, "tenant.domain_taken"));
            let (_, two) = a.ask("POST", &format!("{path}/domains"), json!({"host": "b.west.example"})).await;
            assert_eq!(two["domains"], json!(["b.west.example", "care.west.example"]));
            assert_eq!(call(&a.app, "GET", "B.west.example:443", "/current", None, Value::Null).await.1["name"], "West");
            a.ask("DELETE", &format!("{path}/domains/b.west.example"), Value::Null).await;
            assert_eq!(code(&a.ask("DELETE", &format!("{path}/domains/b.west.example"), Value::Null).await), (404, "tenant.domain_unknown"));

            let edit = json!({"name": "West End", "zone": "Asia/Tokyo", "quotas": {"users": 5, "messages_per_day": 9}});
            let (status, now) = a.ask("PATCH", &path, edit).await;
            assert_eq!((status, &now["name"], &now["quotas"]["users"]), (StatusCode::OK, &json!("West End"), &json!(5)));
            let (_, one) = a.ask("GET", &path, Value::Null).await;
            // At 9:00 UTC it is 18:00 in Tokyo: the day began 18 hours ago.
            let began = medtech_kernel::testkit::START - 18 * 3_600_000;
            assert_eq!((&one["usage"]["users"], &one["usage"]["messages_today"]), (&json!(3), &json!(began)), "{one}");
            for bad in [json!({"zone": "Mars"}), json!({"name": " "}), json!({"quotas": {"users": -1}}), json!({"slug": "x"})] {
                assert!(a.ask("PATCH", &path, bad.clone()).await.0.is_client_error(), "{bad}");
            }
            let names: Vec<Value> = a.ask("GET", "/", Value::Null).await.1["clinics"].as_array().unwrap().iter().map(|c| c["slug"].clone()).collect();
            assert_eq!(names, ["north", "south", "east", "west"]);
            for unknown in ["/999", "/x", "/0"] {
                assert_eq!(code(&a.ask("GET", unknown, Value::Null).await), (404, "tenant.unknown"));
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_clinic_has_no_open_door_and_opens_again_as_it_was() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let a = admin(w).await?;
            let mut live = w.ctx.bus.attach_live()?;
            let (stop, stopped) = watch::channel(false);
            let tasks = a.this.start(&stopped);
            let (who, south) = w
                .sign_in(&w.south, "user:0190a000-0000-7000-8000-000000000002", Role::Admin)
                .await?;
            let ask = async |path: &str| call(&a.app, "GET", "south.localhost", path, Some(&south), Value::Null).await;
            assert_eq!(ask("/settings").await.0, StatusCode::OK);

            let (status, closed) = a.ask("POST", &format!("{}/suspend", a.id(&w.south)), Value::Null).await;
            assert_eq!((status, &closed["status"]), (StatusCode::OK, &json!("suspended")));
            assert_eq!(code(&ask("/settings").await), (403, "tenant.suspended"));
            assert_eq!(code(&ask("/current").await), (403, "tenant.suspended"));
            assert_eq!(
                w.ctx.sessions.verify(w.south.id, &south).await.err().map(|e| e.code),
                Some("tenant.suspended")
            );
            // What they hold open is told to close.
            loop {
                let event = live.recv().await.unwrap();
                if event.kind == "session.revoked" && event.tenant == w.south.id {
                    assert_eq!(event.parse::<medtech_kernel::auth::Revoked>()?.session, who.session);
                    break;
                }
            }
            assert_eq!(
                a.ask("POST", &format!("{}/resume", a.id(&w.south)), Value::Null)
                    .await
                    .0,
                StatusCode::OK
            );
            assert_eq!(ask("/settings").await.0, StatusCode::OK, "the session has stood");
            assert_eq!(
                code(&a.ask("POST", &format!("{}/suspend", a.id(&w.north)), Value::Null).await),
                (409, "tenants.home")
            );

            // Only those who run the installation, and only with a fresh proof.
            for tail in ["", "/suspend", "/resume", "/delete", "/domains"] {
                let path = format!("{}{tail}", a.id(&w.east));
                let body = if tail == "/delete" {
                    json!({"slug": "east"})
                } else {
                    json!({"host": "x.example"})
                };
                let method = if tail.is_empty() { "GET" } else { "POST" };
                assert_eq!(
                    call(&a.app, method, "south.localhost", &path, Some(&south), body)
                        .await
                        .0,
                    StatusCode::FORBIDDEN,
                    "{path}"
                );
            }
            w.ctx.clock.advance(FRESH + 1);
            for (tail, body) in [
                ("/suspend", Value::Null),
                ("/delete", json!({"slug": "south"})),
                ("/domains", json!({"host": "x.example"})),
            ] {
                let answer = a.ask("POST", &format!("{}{tail}", a.id(&w.south)), body).await;
                assert_eq!(code(&answer), (403, "auth.step_up"), "{tail}");
            }
            stop.send_replace(true);
            for task in tasks {
                task.await.unwrap();
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_bounded_versioned_and_go_back() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let a = admin(w).await?;
            let (_, first) = a.ask("GET", "/settings", Value::Null).await;
            assert_eq!(
                (&first["version"], &first["settings"]["idle_minutes"]),
                (&json!(1), &json!(15))
            );
            let put = async |version: i64, settings: Value| {
                a.ask("PUT", "/settings", json!({"version": version, "settings": settings}))
                    .await
            };
            for (bad, expected) in [
                (json!({"idle_minutes": 0}), (422, "tenant.settings_bounds")),
                (json!({"majority_age": 99}), (422, "tenant.settings_bounds")),
                (json!({"idle_minutes": "x"}), (422, "tenant.settings_type")),
                (json!({"colour": "red"}), (422, "tenant.settings_unknown")),
            ] {
                assert_eq!(code(&put(1, bad.clone()).await), expected, "{bad}");
            }
            let (status, one) = put(1, json!({"idle_minutes": 30})).await;
            assert_eq!(
                (status, &one["version"], &one["settings"]["idle_minutes"]),
                (StatusCode::OK, &json!(2), &json!(30)),
                "{one}"
            );
            assert_eq!(
                w.ctx.tenants.by_id(w.north.id).unwrap().settings.idle_minutes,
                30,
                "in force at once"
            );
            assert_eq!(
                code(&put(1, json!({"idle_minutes": 45})).await),
                (412, "tenant.settings_changed")
            );
            put(2, json!({"majority_age": 16, "idle_minutes": 60})).await;
            let (status, back) = a.ask("POST", "/settings/rollback", json!({"version": 2})).await;
            assert_eq!(
                (
                    status,
                    &back["version"],
                    &back["settings"]["idle_minutes"],
                    &back["settings"]["majority_age"]
                ),
                (StatusCode::OK, &json!(4), &json!(30), &json!(18))
            );
            assert_eq!(
                code(&a.ask("POST", "/settings/rollback", json!({"version": 9})).await),
                (404, "tenant.settings_version")
            );
            let (_, all) = a.ask("GET", "/settings/versions", Value::Null).await;
            assert_eq!(all["versions"].as_array().unwrap().len(), 4);
            let trail = medtech_kernel::audit::page(&w.ctx.db, w.north.id, &Default::default(), 10).await?;
            let told: Vec<&str> = trail
                .iter()
                .filter(|e| e.target == "settings" && e.actor != "system")
                .map(|e| e.detail.as_str())
                .collect();
            assert_eq!(
                told,
                [
                    "version 4, back to 2: idle_minutes 60 -> 30, majority_age 16 -> 18",
                    "version 3: idle_minutes 30 -> 60, majority_age 18 -> 16",
                    "version 2: idle_minutes 15 -> 30"
                ]
            );
            assert_eq!(
                w.ctx.tenants.by_id(w.south.id).unwrap().settings.idle_minutes,
                15,
                "nobody else's"
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_everything_and_its_manifest_is_true() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let a = admin(w).await?;
            for (clinic, family) in [(&w.north, "Northern"), (&w.south, "Southern")] {
                for _ in 0..3 {
                    let patient = json!({"resourceType": "Patient", "name": [{"family": family}]});
                    a.this.fhir.create(clinic.id, "system", patient).await?;
                }
            }
            assert_eq!(
                code(&a.ask("POST", "/own/export", json!({"passphrase": "short"})).await),
                (422, "tenants.passphrase")
            );
            assert_eq!(
                code(&a.ask("POST", &format!("{}/export", a.id(&w.south)), json!({})).await),
                (404, "tenant.unknown")
            );
            let (status, job) = a.ask("POST", "/own/export", json!({})).await;
            assert_eq!(status, StatusCode::ACCEPTED, "{job}");
            let path = format!("/exports/{}", job["id"].as_str().unwrap());
            let done = ended(&a, &path).await;
            assert_eq!(done["state"], "done", "{done}");
            assert_eq!(done["steps"], done["steps_done"]);

            let bytes = fetch(&a, &path, None).await;
            assert_eq!(hex(&bytes), done["sha256"].as_str().unwrap());
            // In two halves it is the same.
            let half = bytes.len() / 2;
            let mut parts = fetch(&a, &path, Some(format!("bytes=0-{}", half - 1))).await;
            parts.extend(fetch(&a, &path, Some(format!("bytes={half}-"))).await);
            assert_eq!(parts, bytes);

            let mut files = HashMap::new();
            for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut body = Vec::new();
                entry.read_to_end(&mut body).unwrap();
                files.insert(name, body);
            }
            let manifest: Value = serde_json::from_slice(&files.remove("manifest.json").unwrap()).unwrap();
            let listed = manifest["files"].as_array().unwrap();
            assert_eq!(listed.len(), files.len());
            for item in listed {
                let body = &files[item["path"].as_str().unwrap()];
                assert_eq!(
                    (hex(body), body.len() as u64),
                    (
                        item["sha256"].as_str().unwrap().to_owned(),
                        item["size"].as_u64().unwrap()
                    )
                );
            }
            let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
            assert_eq!(text("fhir/Patient.ndjson").lines().count(), 3);
            assert!(text("fhir/Patient.ndjson").lines().all(|l| l.contains("Northern")));
            assert!(!files.values().any(|f| String::from_utf8_lossy(f).contains("Southern")));
            assert_eq!(text("users.ndjson").lines().count(), 3);
            assert_eq!(files[&format!("files/{}", Uuid::from_u128(7))], FILE);
            // What was erased is not in it, and is no reason to have no export.
            assert_eq!(text("files.ndjson").lines().count(), 1);
            let last: Value = serde_json::from_str(text("audit.ndjson").lines().last().unwrap()).unwrap();
            assert_eq!(
                (&last["sha256"], &last["seq"]),
                (&manifest["audit"]["head_sha256"], &manifest["audit"]["entries"])
            );

            // It is a copy of everything: for a fresh proof only, and for a day.
            w.ctx.clock.advance(FRESH + 1);
            assert_eq!(
                code(&a.ask("GET", &format!("{path}/archive"), Value::Null).await),
                (403, "auth.step_up")
            );
            w.ctx.clock.advance(export::KEPT);
            export::remove_old(&a.this).await;
            let (_, token) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000001", Role::Admin)
                .await?;
            let (_, gone) = call(&a.app, "GET", HOME, &path, Some(&token), Value::Null).await;
            assert_eq!(gone["state"], "removed");
            assert_eq!(std::fs::read_dir(export::dir(&w.ctx, w.north.id)).unwrap().count(), 0);
            Ok(())
        })
    })
    .await;
}

/// The export, when it has ended.
async fn ended(a: &Admin, path: &str) -> Value {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let (_, now) = a.ask("GET", path, Value::Null).await;
        if now["state"] != "running" {
            return now;
        }
        assert!(std::time::Instant::now() < end, "{now}");
        tokio::task::yield_now().await;
    }
}

/// A deletion that follows destroys the originals: an archive with anything else in it would be taken for a copy of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_files_are_not_what_was_sent_fails() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let damaged = Neighbours {
                damaged: AtomicBool::new(true),
                ..Neighbours::default()
            };
            let a = admin_of(w, module_beside(w, damaged)).await?;
            let (status, job) = a.ask("POST", "/own/export", json!({})).await;
            assert_eq!(status, StatusCode::ACCEPTED, "{job}");
            let path = format!("/exports/{}", job["id"].as_str().unwrap());
            assert_eq!(ended(&a, &path).await["state"], "failed");
            assert_eq!(std::fs::read_dir(export::dir(&w.ctx, w.north.id)).unwrap().count(), 0);
            Ok(())
        })
    })
    .await;
}

pub(super) fn hex(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

async fn fetch(a: &Admin, path: &str, range: Option<String>) -> Vec<u8> {
    let mut request = Request::builder()
        .uri(format!("{path}/archive"))
        .header("host", HOME)
        .header("authorization", format!("Bearer {}", a.token));
    if let Some(range) = &range {
        request = request.header("range", range);
    }
    let answer = a
        .app
        .clone()
        .oneshot(request.body(Bytes::empty()).unwrap())
        .await
        .unwrap();
    let expected = if range.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    assert_eq!(answer.status(), expected);
    answer.into_body().collect().await.unwrap().to_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_clinic_is_gone_after_a_week_and_a_certificate_stays() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let a = admin(w).await?;
            for clinic in [&w.south, &w.east] {
                a.this
                    .fhir
                    .create(clinic.id, "system", json!({"resourceType": "Patient"}))
                    .await?;
            }
            let east = a.id(&w.east);
            assert_eq!(
                code(&a.ask("POST", &format!("{east}/delete"), json!({"slug": "est"})).await),
                (422, "tenants.confirmation")
            );
            let (status, now) = a.ask("POST", &format!("{east}/delete"), json!({"slug": "east"})).await;
            assert_eq!((status, &now["status"]), (StatusCode::OK, &json!("deleting")));
            assert_eq!(
                call(&a.app, "GET", "east.localhost", "/current", None, Value::Null)
                    .await
                    .0,
                StatusCode::FORBIDDEN
            );
            // Within the week it can be undone.
            w.ctx.clock.advance(clinics::GRACE - 60_000);
            a.this.reap().await;
            let (_, token) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000001", Role::Admin)
                .await?;
            let ask = async |method: &str, path: &str, body: Value| {
                call(&a.app, method, HOME, path, Some(&token), body).await
            };
            assert_eq!(
                ask("POST", &format!("{east}/resume"), Value::Null).await.1["status"],
                "active"
            );
            assert_eq!(
                a.this
                    .fhir
                    .search(w.east.id, &medtech_fhir::Access::All, "Patient", "")
                    .await?
                    .resources
                    .len(),
                1
            );

            ask("POST", &format!("{east}/delete"), json!({"slug": "east"})).await;
            let head = medtech_kernel::audit::page(&w.ctx.db, w.east.id, &Default::default(), 1)
                .await?
                .remove(0);
            w.ctx.clock.advance(clinics::GRACE);
            a.this.reap().await;
            assert!(w.ctx.tenants.by_id(w.east.id).is_none());
            let (_, token) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000001", Role::Admin)
                .await?;
            let (_, left) = call(&a.app, "GET", HOME, "/certificates", Some(&token), Value::Null).await;
            let certificate = &left["certificates"][0];
            let head_hash: String = head.hash.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(
                (
                    &certificate["slug"],
                    &certificate["audit_entries"],
                    &certificate["audit_head_sha256"],
                    &certificate["tables"]["fhir_res"],
                    &certificate["files"]
                ),
                (
                    &json!("east"),
                    &json!(head.seq),
                    &json!(head_hash),
                    &json!(1),
                    &json!(1)
                ),
                "{left}"
            );
            assert!(
                medtech_kernel::audit::verify(&w.ctx.db, TenantId::SYSTEM)
                    .await?
                    .is_ok()
            );
            // The neighbour has lost nothing; the short name is free, the number is not.
            assert_eq!(
                a.this
                    .fhir
                    .search(w.south.id, &medtech_fhir::Access::All, "Patient", "")
                    .await?
                    .resources
                    .len(),
                1
            );
            assert!(w.ctx.tenants.create("east", "East", "UTC", &[]).await?.id > w.east.id);
            Ok(())
        })
    })
    .await;
}

/// Killed, or out of disk, between the end of the clinic's rows and the end of its keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_was_cut_short_goes_on_at_the_next_look_and_harms_nobody() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let a = admin(w).await?;
            let east = a.id(&w.east);
            a.ask("POST", &format!("{east}/delete"), json!({"slug": "east"})).await;
            w.ctx.clock.advance(clinics::GRACE);
            // Nothing can be put into the ledger.
            let ledger = w.dir.path().join("erasures.jsonl");
            std::fs::create_dir(&ledger).unwrap();
            for _ in 0..2 {
                a.this.reap().await;
                assert!(
                    w.ctx.tenants.by_id(w.east.id).is_some(),
                    "not buried without its keys destroyed"
                );
                // What goes through all clinics meanwhile passes this one over.
                for tenant in w.ctx.tenants.all() {
                    if let Err(e) = w.ctx.bus.backlog(tenant.id).await {
                        assert!(e.is_refused_file() && tenant.id == w.east.id, "{e:?}");
                    }
                }
            }
            std::fs::remove_dir(&ledger).unwrap();
            a.this.reap().await;
            assert!(w.ctx.tenants.by_id(w.east.id).is_none());
            assert!(w.ctx.vault.page_key(w.east.id, 1).is_err(), "its keys are destroyed");
            let (_, token) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000001", Role::Admin)
                .await?;
            let (_, left) = call(&a.app, "GET", HOME, "/certificates", Some(&token), Value::Null).await;
            assert_eq!(left["certificates"][0]["slug"], "east", "{left}");
            Ok(())
        })
    })
    .await;
}
