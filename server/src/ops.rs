//! What operators look at: liveness, readiness, metrics, and the description of the API.

use crate::{
    doctor::free_bytes,
    gateway::Peer,
    tls::{acme, certificates::Certificates},
};
use axum::{
    Extension, Json, Router,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, Method, StatusCode, header};
use medtech_kernel::{
    Ctx, Error, TenantId,
    auth::Principal,
    error::Code,
    policy::{Action, Resource},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Outbox rows older than this mean that side effects are stuck.
const OUTBOX_LAG_MS: i64 = 60_000;
/// Under this much free space the server asks to be taken out of service before writes begin to fail.
const LEAST_FREE: u64 = 64 << 20;

/// Who asks whether we are ready wants to know now: a database that has not answered by then is not there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

const PROBE: &str = "SELECT COUNT(*) FROM tenant WHERE tenant = $1";

/// The measurements of this process.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    dropped: Gauge,
    outbox: Family<GroupLabels, Gauge>,
    panics: Counter<u64, AtomicU64>,
    certificates: Option<Arc<Certificates>>,
    expiry: Family<CertificateLabels, Gauge>,
    failing: Family<CertificateLabels, Gauge>,
    refusals: Family<RefusalLabels, Counter<u64, AtomicU64>>,
    pages_read: Gauge,
    pages_refused: Gauge,
    ctx: Ctx,
}

/// Bounded: routes are the router's own patterns, never paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

/// Bounded: codes are constants of the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: String,
}

/// As many as there are certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    names: String,
}

fn seconds() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    ])
}

impl Metrics {
    pub(crate) fn new(ctx: Ctx, certificates: Option<Arc<Certificates>>) -> Arc<Self> {
        let mut registry = Registry::with_prefix("medtech");
        let requests = Family::new_with_constructor(seconds as fn() -> Histogram);
        let (dropped, outbox, panics) = (Gauge::default(), Family::default(), Counter::default());
        let (pages_read, pages_refused) = (Gauge::default(), Gauge::default());
        registry.register(
            "database_pages_read",
            "Database pages read and found right by the daily look through all of them, since the start",
            pages_read.clone(),
        );
        registry.register(
            "database_pages_refused",
            "Database pages that were damaged, changed or put back, in the last such round",
            pages_refused.clone(),
        );
        registry.register("http_request_seconds", "Time to answer a request", requests.clone());
        registry.register(
            "live_events_dropped",
            "Live events that found the hub's inbox full",
            dropped.clone(),
        );
        registry.register(
            "outbox_waiting",
            "Durable events that wait for a consumer",
            outbox.clone(),
        );
        registry.register("panics", "Requests that ended in a panic", panics.clone());
        let expiry = Family::default();
        registry.register(
            "tls_certificate_expiry_seconds",
            "Unix time at which a certificate ends",
            expiry.clone(),
        );
        let failing = Family::default();
        registry.register(
            "tls_certificate_failures",
            "How often in a row a certificate was asked for and not issued; of those where it was, the names",
            failing.clone(),
        );
        let refusals = Family::<RefusalLabels, Counter<u64, AtomicU64>>::default();
        registry.register(
            "http_refusals",
            "Requests that were refused or failed, by the code of the answer",
            refusals.clone(),
        );
        Arc::new(Self {
            certificates,
            expiry,
            failing,
            refusals,
            registry,
            requests,
            dropped,
            outbox,
            panics,
            pages_read,
            pages_refused,
            ctx,
        })
    }

    async fn text(&self) -> medtech_kernel::Result<String> {
        self.dropped
            .set(i64::try_from(self.ctx.bus.dropped()).unwrap_or(i64::MAX));
        let mut waiting = std::collections::HashMap::<String, i64>::new();
        for tenant in self.ctx.tenants.all() {
            let backlog = match self.ctx.bus.backlog(tenant.id).await {
                Err(e) if e.is_refused_file() => continue,
                other => other?,
            };
            for (group, rows, _) in backlog {
                *waiting.entry(group).or_default() += rows;
            }
        }
        self.outbox.clear();
        for (group, rows) in waiting {
            self.outbox.get_or_create(&GroupLabels { group }).set(rows);
        }
        self.expiry.clear();
        for pair in self.certificates.iter().flat_map(|c| c.pairs()) {
            let names = pair.names.join(" ");
            let ends = i64::try_from(pair.ends).unwrap_or(i64::MAX);
            self.expiry.get_or_create(&CertificateLabels { names }).set(ends);
        }
        self.failing.clear();
        if self.ctx.config.tls.acme_directory.is_some() {
            for host in acme::store::hosts(&self.ctx.db).await? {
                if host.failures > 0 {
                    let labels = CertificateLabels { names: host.host };
                    self.failing.get_or_create(&labels).set(host.failures);
                }
            }
        }
        let scrubbed = self.ctx.db.scrubbed();
        for (gauge, count) in [
            (&self.pages_read, &scrubbed.pages),
            (&self.pages_refused, &scrubbed.bad),
        ] {
            gauge.set(i64::try_from(count.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(|e| Error::internal("metrics.encode", e))?;
        Ok(text)
    }
}

pub(crate) fn routes(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .route("/api/openapi.json", get(openapi))
        .with_state(metrics)
}

/// Ready: the database answers, the disk has room, durable events flow.
async fn ready(State(metrics): State<Arc<Metrics>>) -> Response {
    let ctx = &metrics.ctx;
    let answers = ctx.db.query_one(TenantId::SYSTEM, PROBE, &[]);
    let database = matches!(timeout(ANSWERS_WITHIN, answers).await, Ok(Ok(_)));
    let disk = free_bytes(&ctx.config.data_dir).is_ok_and(|free| free >= LEAST_FREE);
    let mut oldest = None;
    // Without a database every clinic would be waited for as long again.
    for tenant in ctx.tenants.all().iter().filter(|_| database) {
        let due = ctx
            .bus
            .backlog(tenant.id)
            .await
            .unwrap_or_default()
            .into_iter()
            .map(|(_, _, due)| due)
            .min();
        oldest = oldest.into_iter().chain(due).min();
    }
    let outbox = oldest.is_none_or(|due| ctx.clock.now_ms() - due < OUTBOX_LAG_MS);
    let status = if database && disk && outbox {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({"database": database, "disk": disk, "outbox": outbox})),
    )
        .into_response()
}

/// For the machine's own collector, and for administrators.
async fn text(
    State(metrics): State<Arc<Metrics>>,
    peer: Option<Extension<Peer>>,
    who: Option<Principal>,
    headers: HeaderMap,
) -> medtech_kernel::Result<Response> {
    match who {
        Some(who) => {
            let all = Resource::new("metrics", "*");
            metrics.ctx.policy.require(&who, Action::Read, &all).await?;
        }
        None if peer.is_some_and(|Extension(peer)| peer.is_local(&headers)) => {}
        None => return Err(Error::unauthorized("auth.token_missing", "Please sign in.")),
    }
    let text = metrics.text().await?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response())
}

async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
}

/// Measures every request, and turns a panic into a problem document that ends that request alone.
pub(crate) async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method_label(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    // A task of its own would lose the connection's extensions; an unwind guard keeps the panic within the request.
    let response = match CatchPanic::new(next.run(request)).await {
        Ok(response) => response,
        Err(()) => {
            metrics.panics.inc();
            Error::internal("http.panicked", "a handler panicked").into_response()
        }
    };
    if let Some(Code(code)) = response.extensions().get() {
        metrics.refusals.get_or_create(&RefusalLabels { code }).inc();
    }
    let labels = RequestLabels {
        method,
        route,
        status: response.status().as_u16(),
    };
    metrics
        .requests
        .get_or_create(&labels)
        .observe(began.elapsed().as_secs_f64());
    response
}

/// The methods that are served; whatever else a client invents shares one label, or each would be kept for ever.
fn method_label(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|m| *m == method.as_str()).unwrap_or("other")
}

/// A future whose panics are values.
struct CatchPanic<F>(std::pin::Pin<Box<F>>);

impl<F: Future> CatchPanic<F> {
    fn new(inner: F) -> Self {
        Self(Box::pin(inner))
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, ()>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let inner = self.0.as_mut();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => std::task::Poll::Ready(Err(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::kept;
    use axum::{body::Body, middleware::from_fn_with_state};
    use http_body_util::BodyExt;
    use medtech_kernel::{config::LogFormat, testkit::on_both_engines};
    use serde_json::Value;
    use tower::ServiceExt;

    const INSIDE: &str = "no such table: patient_secret of 10.0.0.7";

    async fn fails() -> medtech_kernel::Result<()> {
        Err(Error::internal("db.sqlite", std::io::Error::other(INSIDE)))
    }

    async fn panics() -> &'static str {
        panic!("{INSIDE}")
    }

    async fn refused() -> medtech_kernel::Result<()> {
        Err(Error::unauthorized("auth.token_invalid", "Please sign in again."))
    }

    /// One thread, so that the log of the test is the log of everything in it.
    #[tokio::test]
    async fn an_error_and_a_panic_are_logged_and_counted_and_tell_nothing_of_the_inside() {
        on_both_engines(&[], |w| {
            Box::pin(async move {
                let metrics = Metrics::new(w.ctx.clone(), None);
                let router = Router::new()
                    .route("/fails", get(fails))
                    .route("/panics", get(panics))
                    .route("/refused", get(refused))
                    .layer(from_fn_with_state(metrics.clone(), observe));
                for (path, code, counted) in [
                    ("/fails", "db.sqlite", "medtech_panics_total 0"),
                    ("/panics", "http.panicked", "medtech_panics_total 1"),
                ] {
                    let (log, guard) = kept(LogFormat::Json);
                    let request = Request::get(path).body(Body::empty()).expect("a request");
                    let answer = router.clone().oneshot(request).await.expect("an answer");
                    drop(guard);
                    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
                    let body = answer.into_body().collect().await.expect("a body").to_bytes();
                    let text = String::from_utf8_lossy(&body).into_owned();
                    for inside in ["patient_secret", "10.0.0.7", "ops.rs", "src/", "panick"] {
                        let told = text.replace("http.panicked", "");
                        assert!(!told.contains(inside), "{inside}: {text}");
                    }
                    let problem: Value = serde_json::from_slice(&body).expect("a problem document");
                    let correlation = problem["correlation"].as_str().expect("a correlation");
                    let lines = log.lines();
                    let entries: Vec<Value> = lines.iter().filter_map(|l| serde_json::from_str(l).ok()).collect();
                    let logged: Vec<&Value> = entries.iter().filter(|e| e["correlation"] == correlation).collect();
                    assert_eq!(logged.len(), 1, "{lines:?}");
                    assert_eq!(
                        (&logged[0]["level"], &logged[0]["code"]),
                        (&"ERROR".into(), &code.into())
                    );
                    if path == "/panics" {
                        // The place, and not the words: they may be about a patient.
                        assert!(
                            entries
                                .iter()
                                .any(|e| e["place"].as_str().is_some_and(|p| p.contains("ops.rs")))
                        );
                        assert!(lines.iter().all(|l| !l.contains("patient_secret")), "{lines:?}");
                    } else {
                        assert!(
                            logged[0]["source"]
                                .as_str()
                                .is_some_and(|s| s.contains("patient_secret"))
                        );
                    }
                    let measured = metrics.text().await?;
                    assert!(measured.contains(counted), "{measured}");
                    assert!(
                        measured.contains(&format!("medtech_http_refusals_total{{code=\"{code}\"}} 1")),
                        "{measured}"
                    );
                }
                for _ in 0..3 {
                    let request = Request::get("/refused").body(Body::empty()).expect("a request");
                    let _ = router.clone().oneshot(request).await.expect("an answer");
                }
                let measured = metrics.text().await?;
                assert!(
                    measured.contains("medtech_http_refusals_total{code=\"auth.token_invalid\"} 3"),
                    "{measured}"
                );
                Ok(())
            })
        })
        .await;
    }
}
