//! The media service alone on a free port, for trying clients: `/token`, `/permission`, `/remove` hand out and change.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for the developer's terminal"
)]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::Query;
use axum::routing::get;
use medtech_media_sfu::SfuConfig;
use medtech_signaling::livekit::{
    ApiKey, ApiKeys, Clock, LeaveReason, LiveKit, LiveKitConfig, Permission, TenantId, TokenRequest,
};

struct One(ApiKey);

impl ApiKeys for One {
    fn by_key(&self, key: &str) -> Option<ApiKey> {
        (key == &*self.0.key).then(|| self.0.clone())
    }
    fn of_tenant(&self, _: TenantId) -> Option<ApiKey> {
        Some(self.0.clone())
    }
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    let tenant = TenantId::from_number(1);
    let key = ApiKey {
        tenant,
        key: "devkey".into(),
        secret: (*b"a secret of more than thirty-two bytes").into(),
    };
    let config = LiveKitConfig {
        media: SfuConfig {
            udp_port: 0,
            threads: 2,
            advertise: vec![Ipv4Addr::LOCALHOST.into()],
        },
        keys: Arc::new(One(key)),
        clock: Clock::system(),
    };
    let (service, mut events) = LiveKit::start(config).unwrap();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            println!("EVENT {} {} {:?}", event.identity, event.sid, event.kind);
        }
    });
    let permission = |q: &HashMap<String, String>| match q.get("permission").map(String::as_str) {
        Some("waiting") => Permission::waiting(),
        _ => Permission::full(),
    };
    let (a, b, c, d) = (service.clone(), service.clone(), service.clone(), service.clone());
    let app = service
        .router()
        .route(
            "/token",
            get(move |Query(q): Query<HashMap<String, String>>| async move {
                let request = TokenRequest {
                    tenant,
                    room: q["room"].clone(),
                    identity: q["identity"].clone(),
                    name: q["identity"].clone(),
                    permission: permission(&q),
                    ttl_ms: 600_000,
                };
                a.token(&request).unwrap()
            }),
        )
        .route(
            "/permission",
            get(move |Query(q): Query<HashMap<String, String>>| async move {
                b.set_permission(tenant, &q["room"], &q["identity"], permission(&q))
                    .await
                    .unwrap()
                    .to_string()
            }),
        )
        .route(
            "/remove",
            get(move |Query(q): Query<HashMap<String, String>>| async move {
                c.remove(tenant, &q["room"], &q["identity"], LeaveReason::Removed)
                    .await
                    .is_ok()
                    .to_string()
            }),
        )
        .route("/stats", get(move || async move { format!("{:?}", d.stats()) }));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    println!("LISTENING {}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}
