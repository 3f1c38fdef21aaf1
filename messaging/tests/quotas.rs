//! What a clinic may take, as its quotas say: bytes of files, and messages a day. One clinic's are not another's.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use axum::{Extension, Router, body::Body};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use medtech_kernel::{
    Module, Result, Tenant,
    auth::Role,
    tenant::Quotas,
    testkit::{World, on_both_engines},
};
use medtech_messaging::{
    Messaging,
    model::{Draft, DraftBody},
};
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;
use uuid::Uuid;

const ANNA: &str = "user:0190c1b0-0000-7000-8000-00000000000a";
const DAY: i64 = 86_400_000;

struct Place<'a> {
    w: &'a World,
    m: Arc<Messaging>,
    app: Router,
}

impl Place<'_> {
    async fn conversation(&self, tenant: &Tenant) -> Result<Uuid> {
        let (m, members) = (self.m.clone(), [(ANNA.to_owned(), "Anna".to_owned())]);
        let make = self.w.ctx.db.write(tenant.id, move |tx| {
            Box::pin(async move { m.create_conversation_in(tx, "t", "t", &members).await })
        });
        make.await
    }

    /// (status, code) of announcing a file of this size.
    async fn announce(&self, tenant: &Tenant, token: &str, conversation: Uuid, size: u64) -> (StatusCode, String) {
        let request = Request::post("/files")
            .header("host", format!("{}.localhost", tenant.slug))
            .header("authorization", format!("Bearer {token}"))
            .header("tus-resumable", "1.0.0")
            .header("upload-length", size.to_string())
            .header(
                "upload-metadata",
                format!("conversation {}", STANDARD.encode(conversation.to_string())),
            );
        let answer = self
            .app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let code = serde_json::from_slice::<Value>(&body).ok();
        (
            status,
            code.and_then(|v| v["code"].as_str().map(str::to_owned))
                .unwrap_or_default(),
        )
    }

    /// The code of a message's refusal, if it is refused.
    async fn say(&self, tenant: &Tenant, token: &str, conversation: Uuid) -> Option<(u16, &'static str)> {
        let who = self.w.ctx.sessions.verify(tenant.id, token).await.unwrap();
        let body = DraftBody {
            text: Some("x".into()),
            file: None,
        };
        let draft = Draft {
            client_id: Uuid::now_v7(),
            body,
        };
        self.m
            .send(&who, conversation, draft)
            .await
            .err()
            .map(|e| (e.status().as_u16(), e.code))
    }
}

async fn quotas(w: &World) -> Result<()> {
    let m = Arc::new(Messaging::new(w.ctx.clone())?);
    let app = Router::new()
        .merge(m.clone().file_routes())
        .layer(Extension(w.ctx.clone()));
    let p = Place { w, m, app };
    let (north, south) = (p.conversation(&w.north).await?, p.conversation(&w.south).await?);
    let (a, b) = (
        w.sign_in(&w.north, ANNA, Role::Clinician).await?.1,
        w.sign_in(&w.south, ANNA, Role::Clinician).await?.1,
    );
    let quotas = Quotas {
        storage_bytes: Some(1_000),
        messages_per_day: Some(3),
        ..Quotas::default()
    };
    w.ctx.tenants.set_quotas(w.north.id, &quotas, "system").await?;

    assert_eq!(
        p.announce(&w.north, &a, north, 1_001).await,
        (StatusCode::PAYLOAD_TOO_LARGE, "tenant.quota_storage".into())
    );
    assert_eq!(p.announce(&w.north, &a, north, 600).await.0, StatusCode::CREATED);
    assert_eq!(
        p.announce(&w.north, &a, north, 401).await,
        (StatusCode::PAYLOAD_TOO_LARGE, "tenant.quota_storage".into())
    );
    assert_eq!(p.announce(&w.north, &a, north, 400).await.0, StatusCode::CREATED);
    assert_eq!(p.announce(&w.north, &a, north, 1).await.1, "tenant.quota_storage");
    assert_eq!(p.announce(&w.south, &b, south, 5_000).await.0, StatusCode::CREATED);

    for _ in 0..3 {
        assert_eq!(p.say(&w.north, &a, north).await, None);
    }
    for _ in 0..2 {
        assert_eq!(p.say(&w.north, &a, north).await, Some((429, "tenant.quota")));
    }
    for _ in 0..5 {
        assert_eq!(p.say(&w.south, &b, south).await, None);
    }
    // A new day of the clinic's calendar.
    w.ctx.clock.advance(DAY);
    let a = w.sign_in(&w.north, ANNA, Role::Clinician).await?.1;
    assert_eq!(p.say(&w.north, &a, north).await, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clinics_quotas_of_files_and_messages_hold_and_are_its_own() {
    on_both_engines(&[Messaging::migrations()], |w| Box::pin(quotas(w))).await;
}
